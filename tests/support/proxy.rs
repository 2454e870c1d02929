//! A TCP proxy between a client and a server that can misbehave the ways networks do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What happens to bytes, and to new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing special.
    Pass,
    /// New connections are closed at once; old ones go on.
    Refuse,
    /// Bytes are read and vanish, both ways: the peer looks alive and answers nothing.
    Swallow,
    /// Bytes pass at about this many a second.
    Slow(u32),
}

/// A running proxy; gone when dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    control: Arc<watch::Sender<(Mode, u64)>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn to(target: u16) -> Self {
        Self::on(0, target).await
    }

    /// Listens on `port` instead of on any.
    pub(crate) async fn on(port: u16, target: u16) -> Self {
        Self::at("127.0.0.1", port, target).await
    }

    pub(crate) async fn at(address: &str, port: u16, target: u16) -> Self {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let control = Arc::new(watch::Sender::new((Mode::Pass, 0)));
        let task = tokio::spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], target)), Arc::clone(&control)));
        Self { port, control, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.control.send_modify(|(m, _)| *m = mode);
    }

    /// Ends all connections there are.
    pub(crate) fn cut(&self) {
        self.control.send_modify(|(_, cuts)| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, control: Arc<watch::Sender<(Mode, u64)>>) {
    while let Ok((client, _)) = listener.accept().await {
        if control.borrow().0 == Mode::Refuse {
            continue;
        }
        let Ok(server) = TcpStream::connect(target).await else { continue };
        let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
        let control = control.subscribe();
        tokio::spawn(async move {
            // Whichever side ends first ends both.
            tokio::select! {
                () = pump(client_in, server_out, control.clone()) => {}
                () = pump(server_in, client_out, control.clone()) => {}
                () = cut(control) => {}
            }
        });
    }
}

async fn cut(mut control: watch::Receiver<(Mode, u64)>) {
    let now = control.borrow().1;
    drop(control.wait_for(|(_, cuts)| *cuts > now).await);
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, control: watch::Receiver<(Mode, u64)>) {
    let mut buffer = [0; 4096];
    loop {
        let mode = control.borrow().0;
        let room = if let Mode::Slow(rate) = mode { (rate as usize / 50).clamp(1, buffer.len()) } else { buffer.len() };
        let Ok(n @ 1..) = from.read(&mut buffer[..room]).await else { return };
        let mode = control.borrow().0;
        match mode {
            Mode::Swallow => continue,
            Mode::Slow(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Mode::Pass | Mode::Refuse => {}
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
