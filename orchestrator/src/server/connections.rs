//! Connections: how many there are, how long one may take to ask, and how all of them end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::fault::Fault;
use super::limits::LARGEST_BODY;

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(30);
/// How soon a connection is asked for again after one could not be taken, as when too many files are open.
const AGAIN: Duration = Duration::from_millis(200);

/// What holds for connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most at once; others wait to be taken.
    pub(super) most: usize,
    /// How long the head of a request may take to arrive, and how long a connection may ask nothing.
    pub(super) head: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { most: 1_024, head: Duration::from_secs(30) }
    }
}

/// Answers until `stopped`; requests under way are answered first.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    bounds: Bounds,
    stopped: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(bounds.most));
    // Every connection holds a receiver: it hears of the end, and its own end is heard.
    let (end, ends) = watch::channel(false);
    let accepting = async {
        loop {
            // Never closed, so there is always one in the end.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be taken");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            // Small answers leave at once.
            let _ = stream.set_nodelay(true);
            let (routes, mut ends) = (routes.clone(), ends.clone());
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(bounds.head)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    // What goes wrong with a connection concerns only whoever opened it.
                    _ = connection.as_mut() => {}
                    () = async { drop(ends.wait_for(|ended| *ended).await) } => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stopped => {}
    }
    drop(listener);
    let _ = end.send(true);
    drop(ends);
    end.closed().await;
}

/// The body of a request, once it is there.
pub(super) async fn body_of(body: Body) -> Result<Bytes, Fault> {
    match tokio::time::timeout(BODY, axum::body::to_bytes(body, LARGEST_BODY)).await {
        Ok(read) => read.map_err(|_| {
            let details = format!("a body may have {LARGEST_BODY} bytes");
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large", details)
        }),
        Err(_) => {
            let details = format!("the body did not arrive within {} seconds", BODY.as_secs());
            Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", details))
        }
    }
}

/// The same request with its whole body, for handlers that read it themselves.
pub(super) async fn with_whole_body(request: Request) -> Result<Request, Fault> {
    let (parts, body) = request.into_parts();
    Ok(Request::from_parts(parts, Body::from(body_of(body).await?)))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    struct Scene {
        address: SocketAddr,
        stop: Arc<Notify>,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn scene(routes: Router, bounds: Bounds) -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let serving = tokio::spawn(serve(listener, routes, bounds, async move { stopped.notified().await }));
        Scene { address, stop, serving }
    }

    async fn sent(scene: &Scene, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Everything that comes until the other side closes.
    async fn heard(mut stream: TcpStream) -> String {
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test]
    async fn whoever_says_half_of_a_head_is_sent_away() {
        let routes = Router::new().route("/", get(|| async { "here" }));
        let scene = scene(routes, Bounds { head: Duration::from_millis(50), ..Bounds::default() }).await;
        let half = sent(&scene, b"GET / HTTP/1.1\r\nhost: x\r\n").await;
        assert!(!heard(half).await.contains("200 OK"), "the other half never came");
        let silent = sent(&scene, b"").await;
        assert_eq!(heard(silent).await, "");
        // A connection that asks nothing more ends the same way; until then it is answered.
        assert!(heard(sent(&scene, WHOLE).await).await.ends_with("here"));
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_head() {
        let head = Duration::from_millis(20);
        let slow = get(move || async move {
            tokio::time::sleep(head * 5).await;
            let late = futures::stream::once(async move {
                tokio::time::sleep(head * 5).await;
                Ok::<_, std::io::Error>("all of it")
            });
            Body::from_stream(late)
        });
        let scene = scene(Router::new().route("/", slow), Bounds { head, ..Bounds::default() }).await;
        assert!(heard(sent(&scene, WHOLE).await).await.contains("all of it"));
    }

    #[tokio::test]
    async fn more_connections_than_there_are_places_wait_for_one() {
        let routes = Router::new().route("/", get(|| async { "here" }));
        let scene = scene(routes, Bounds { most: 1, ..Bounds::default() }).await;
        let first = sent(&scene, WHOLE).await;
        let mut answered = [0; 12];
        first.readable().await.unwrap();
        assert_eq!(first.try_read(&mut answered).unwrap(), 12);
        let second = sent(&scene, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let second = tokio::spawn(heard(second));
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished(), "the only place is taken");
        drop(first);
        assert!(second.await.unwrap().ends_with("here"));
    }

    #[tokio::test]
    async fn at_the_end_what_was_asked_is_answered_and_idle_connections_are_closed() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (begun.clone(), go_on.clone());
        let routes = Router::new().route(
            "/",
            get(move || async move {
                told.notify_one();
                waits.notified().await;
                "late, but here"
            }),
        );
        let scene = scene(routes, Bounds::default()).await;
        let idle = sent(&scene, b"").await;
        let asked = sent(&scene, WHOLE).await;
        begun.notified().await;
        scene.stop.notify_one();
        assert_eq!(heard(idle).await, "");
        assert!(!scene.serving.is_finished());
        go_on.notify_one();
        assert!(heard(asked).await.ends_with("late, but here"));
        scene.serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_not_waited_for() {
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let response = axum::response::IntoResponse::into_response(body_of(never).await.unwrap_err());
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(body_of(Body::from("here")).await.unwrap(), "here");
        let long = body_of(Body::from(vec![b'x'; LARGEST_BODY + 1])).await.unwrap_err();
        let response = axum::response::IntoResponse::into_response(long);
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
