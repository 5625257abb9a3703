//! A way to a PostgreSQL server on which connections stall, break in mid-word, or break around a commit.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What happens to a connection, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// After so many bytes, of which the last ones do not arrive.
    CutWithin(usize),
    /// After so many bytes, all of which arrived.
    CutBehind(usize),
    /// The server never hears the next commit but so many.
    CutBeforeCommit(usize),
    /// The server commits, and nobody hears of it.
    CutAfterCommit(usize),
    /// After so many bytes nothing passes for a while.
    Stall(usize, Duration),
    /// The next connections but so many are closed at once.
    Refuse(usize),
}

#[derive(Debug, Default)]
struct State {
    troubles: Vec<Trouble>,
    met: usize,
    closed: bool,
}

/// Listens on loopback until it is closed, and passes everything on.
#[derive(Debug, Clone)]
pub struct Way {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What becomes of a piece of what was said.
enum Fate {
    Passes,
    /// Only so much of it passes, and then the connection ends.
    Ends(usize),
    /// It passes; the connection ends with the server's next word.
    LastWord,
}

impl Way {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let way = Self { address: listener.local_addr().expect("its address"), state: Arc::default() };
        let passes = way.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if passes.state().closed {
                    return;
                }
                // A server that is not there is what some walks are about.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                if !passes.refuses() {
                    passes.pass(client, server);
                }
            }
        });
        way
    }

    /// From now on these troubles happen, one after another; none that was to come still does.
    pub fn meets(&self, troubles: Vec<Trouble>) {
        self.state().troubles = troubles;
    }

    /// Takes no further connection.
    pub fn close(&self) {
        self.state().closed = true;
        // It waits for one that it can turn away.
        drop(TcpStream::connect(self.address));
    }

    /// How many troubles have happened.
    pub fn met(&self) -> usize {
        self.state().met
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    fn refuses(&self) -> bool {
        let mut state = self.state();
        match state.troubles.first_mut() {
            Some(Trouble::Refuse(0)) => {
                state.troubles.remove(0);
                state.met += 1;
                true
            }
            Some(Trouble::Refuse(left)) => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }

    fn pass(&self, client: TcpStream, server: TcpStream) {
        let last_word = Arc::new(Mutex::new(false));
        for (from, to, upward) in [(&client, &server, true), (&server, &client, false)] {
            let Some((from, to)) = from.try_clone().ok().zip(to.try_clone().ok()) else { return };
            let (way, last_word) = (self.clone(), last_word.clone());
            std::thread::spawn(move || {
                way.pump(&from, &to, upward, &last_word);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, upward: bool, last_word: &Mutex<bool>) {
        let mut piece = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            if !upward && *last_word.lock().expect("no panic while it is held") {
                return;
            }
            match self.fate(&piece[..read], upward) {
                Fate::Passes => {}
                Fate::Ends(passes) => {
                    let _ = to.write_all(&piece[..passes]);
                    return;
                }
                Fate::LastWord => *last_word.lock().expect("no panic while it is held") = true,
            }
            if to.write_all(&piece[..read]).is_err() {
                return;
            }
        }
    }

    fn fate(&self, piece: &[u8], upward: bool) -> Fate {
        let commits = upward
            && piece
                .windows(7)
                .any(|w| w.eq_ignore_ascii_case(b"commit\0") || w.eq_ignore_ascii_case(b"commit;"));
        let mut state = self.state();
        let Some(trouble) = state.troubles.first_mut() else { return Fate::Passes };
        let fate = match trouble {
            Trouble::CutWithin(left) if *left < piece.len() => Fate::Ends(*left),
            Trouble::CutBehind(left) if *left < piece.len() => Fate::Ends(piece.len()),
            Trouble::CutBeforeCommit(0) if commits => Fate::Ends(0),
            Trouble::CutAfterCommit(0) if commits => Fate::LastWord,
            Trouble::Stall(left, how_long) if *left < piece.len() => {
                let how_long = *how_long;
                state.troubles.remove(0);
                state.met += 1;
                drop(state);
                std::thread::sleep(how_long);
                return Fate::Passes;
            }
            Trouble::CutWithin(left) | Trouble::CutBehind(left) | Trouble::Stall(left, _) => {
                *left -= piece.len();
                return Fate::Passes;
            }
            Trouble::CutBeforeCommit(left) | Trouble::CutAfterCommit(left) => {
                *left -= usize::from(commits);
                return Fate::Passes;
            }
            Trouble::Refuse(_) => return Fate::Passes,
        };
        state.troubles.remove(0);
        state.met += 1;
        fate
    }
}
