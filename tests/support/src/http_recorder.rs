//! An HTTP proxy that records all responses of a server.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// Forwards connections; its threads end with the connections.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    answers: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    /// Listens in the namespace of the calling thread.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let address = listener.local_addr().context("ask for the port")?;
        let answers = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&answers);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Closes the client if its server does not respond.
                let _ = connect(client, server, &kept);
            }
        });
        Ok(Self { address, answers })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns all text of the responses so far.
    pub fn answers(&self) -> String {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&answers).into_owned()
    }
}

fn connect(client: TcpStream, server: SocketAddr, kept: &Arc<Mutex<Vec<u8>>>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (requests, answers) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let kept = Arc::clone(kept);
    thread::spawn(move || pass_on(requests, |_| {}));
    thread::spawn(move || {
        pass_on(answers, |bytes| kept.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes));
    });
    Ok(())
}

fn pass_on((mut from, mut to): (TcpStream, TcpStream), mut note: impl FnMut(&[u8])) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        note(&bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
