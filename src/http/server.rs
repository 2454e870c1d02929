//! Connections: how many, how slow they may be, and how they end. What is answered is in `routes`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::{HttpError, Hub, routes};

/// Connections waiting to be accepted.
const BACKLOG: u32 = 128;
/// Bytes of a request's head, and of an answer on its way, that one connection may hold.
const BUFFER: usize = 64 * 1024;
/// Bytes the kernel holds for one slow reader: a few pictures, so that what it reads is never old.
const SEND_BUFFER: usize = 256 * 1024;
/// How long open answers may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(1);

/// What the server allows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names besides `localhost` that a loopback server answers to; see [`HttpConfig`](super::HttpConfig).
    pub hosts: Vec<String>,
    /// Live views open at once; one more is told to come back.
    pub viewers: usize,
    /// Connections open at once; more wait in the kernel.
    pub connections: usize,
    /// A request's head must arrive within this, and a connection may idle as long.
    pub head_timeout: Duration,
    /// A reader that takes nothing for this long is cut off.
    pub stall_timeout: Duration,
    /// Pictures compressed at once, for all viewers together.
    pub encoders: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            viewers: 32,
            connections: 256,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(20),
            encoders: 2,
        }
    }
}

/// Listens on `addr`.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, HttpError> {
    let open = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::InUse(addr),
        io::ErrorKind::PermissionDenied => HttpError::Denied(addr),
        io::ErrorKind::AddrNotAvailable => HttpError::NoSuchAddress(addr),
        _ => HttpError::Other { addr, source },
    })
}

/// Serves `hub` on `listener` until `shutdown`; then live views end, other answers get a second.
pub async fn serve(listener: TcpListener, hub: Hub, options: Options, shutdown: impl Future) -> io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let (stop, stopped) = watch::channel(false);
    let service = TowerToHyperService::new(routes::router(hub, &options, loopback, stopped.clone()));
    let room = Arc::new(Semaphore::new(options.connections));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            _ = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        prepare(&stream, options.stall_timeout);
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(BUFFER);
        let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
        let mut stopped = stopped.clone();
        connections.spawn(async move {
            let _permit = permit;
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(why) = ended {
                tracing::trace!(%why, "an http connection ended early");
            }
        });
    }
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("http connections were cut");
    }
    Ok(())
}

/// The next connection, once there is room for it. Failures, as of too many open files, are waited out: the daemon's
/// real work does not depend on this server.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; without a permit the connection would only be uncounted.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "an http connection could not be accepted; trying again in a second");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Bounds what the kernel holds for a reader, and how long it waits for one that takes nothing.
fn prepare(stream: &TcpStream, stall: Duration) {
    let socket = SockRef::from(stream);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER))
        .and_then(|()| socket.set_tcp_user_timeout(Some(stall)));
    if let Err(error) = set {
        tracing::debug!(%error, "an http connection keeps the system's buffers and timeouts");
    }
}
