//! Endpoints that nobody answers at.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// An address where nothing answers for as long as this lives.
pub struct DeadEndpoint {
    pub url: String,
    _held: Held,
}

#[allow(dead_code, reason = "held, so that nobody else takes the port")]
enum Held {
    Refusing(TcpSocket),
    Silent(TcpListener),
}

impl DeadEndpoint {
    /// Connections are refused, as by a host whose node has stopped.
    pub fn refusing() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { url: url(socket.local_addr().unwrap()), _held: Held::Refusing(socket) }
    }

    /// Connections are made and never answered, as by a node that hangs.
    pub async fn silent() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { url: url(listener.local_addr().unwrap()), _held: Held::Silent(listener) }
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}
