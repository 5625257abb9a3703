//! A way to a server that can be cut, whatever is spoken over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of what is said from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// Everything passes.
    Never = 0,
    /// What the client says does not arrive: the connection ends.
    Saying = 1,
    /// What the client says arrives; the connection ends when the answer comes.
    Answer = 2,
}

/// Listens on loopback and passes everything on, until it is told to cut.
pub struct Way {
    pub address: SocketAddr,
    cut: Arc<AtomicU8>,
}

impl Way {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicU8::new(0));
        let told = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                tokio::spawn(pass(client, server, told.clone()));
            }
        });
        Self { address, cut }
    }

    pub fn cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, cut: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut upward, mut downward) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let is = |what: Cut| cut.load(Ordering::SeqCst) == what as u8;
    loop {
        tokio::select! {
            read = from_client.read(&mut upward) => {
                let Ok(n @ 1..) = read else { return };
                if is(Cut::Saying) || to_server.write_all(&upward[..n]).await.is_err() { return }
            }
            read = from_server.read(&mut downward) => {
                let Ok(n @ 1..) = read else { return };
                if is(Cut::Answer) || to_client.write_all(&downward[..n]).await.is_err() { return }
            }
        }
    }
}
