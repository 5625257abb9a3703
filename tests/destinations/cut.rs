//! A way to a PostgreSQL server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// When connections are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// What the client says never reaches the server, from the applying statement on.
    BeforeApplying,
    /// The server commits, and its answer does not come back.
    AfterCommit,
}

/// Listens on loopback and passes everything on, until it is armed: then it cuts once.
pub struct Way {
    pub address: SocketAddr,
    armed: Arc<AtomicBool>,
}

impl Way {
    pub async fn to(server: SocketAddr, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let trigger = armed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(pass(client, server, cut, trigger.clone()));
            }
        });
        Self { address, armed }
    }

    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, cut: Cut, armed: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut upward, mut downward) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut committing = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut upward) => {
                let Ok(n @ 1..) = read else { return };
                let said = &upward[..n];
                let says = |words: &[u8]| said.windows(words.len()).any(|w| w == words);
                if cut == Cut::BeforeApplying && says(b"insert into") && armed.swap(false, Ordering::SeqCst) {
                    return;
                }
                if cut == Cut::AfterCommit && says(b"commit\0") && armed.swap(false, Ordering::SeqCst) {
                    committing = true;
                }
                if to_server.write_all(said).await.is_err() { return }
            }
            read = from_server.read(&mut downward) => {
                let Ok(n @ 1..) = read else { return };
                // The answer is here, so the commit is done.
                if committing { return }
                if to_client.write_all(&downward[..n]).await.is_err() { return }
            }
        }
    }
}
