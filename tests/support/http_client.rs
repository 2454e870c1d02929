//! A bare HTTP/1.1 client over one TCP connection: it can be as rude as a test needs.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Nothing a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }
}

/// Sends `raw` as it is and reads until the server closes.
pub(crate) async fn raw(addr: SocketAddr, raw: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may refuse before it has read everything.
    let _sent = stream.write_all(raw).await;
    let mut bytes = Vec::new();
    let _end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server neither answered nor closed");
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("no end of head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// Asks for `path` and reads the whole answer.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "GET", path, "localhost").await
}

/// Asks with any method and host.
pub(crate) async fn request(addr: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    raw(addr, format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// An open event stream.
pub(crate) struct Events {
    stream: TcpStream,
    bytes: Vec<u8>,
    pub(crate) head: String,
}

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: serde_json::Value,
}

impl Events {
    /// Opens `path`. HTTP/1.0: the body is then the bare stream, without chunks.
    pub(crate) async fn open(addr: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut events = Self { stream, bytes: Vec::new(), head: String::new() };
        events.head = events.block("\r\n\r\n").await.expect("an answer");
        events
    }

    /// The stream itself, to leave unread.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// The next event; `None` when the server ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block("\n\n").await?;
            let line = |prefix: &str| block.lines().find_map(|l| l.strip_prefix(prefix).map(str::to_owned));
            let Some(name) = line("event: ") else { continue };
            let data: Vec<&str> = block.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
            let data = serde_json::from_str(&data.join("\n")).unwrap_or_else(|e| panic!("{e} in {block:.300}"));
            return Some(Event { name, data });
        }
    }

    /// The next event called `name`.
    pub(crate) async fn named(&mut self, name: &str) -> serde_json::Value {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event.name == name {
                return event.data;
            }
        }
    }

    async fn block(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.bytes.windows(end.len()).position(|w| w == end.as_bytes()) {
                let rest = self.bytes.split_off(at + end.len());
                let block = std::mem::replace(&mut self.bytes, rest);
                return Some(String::from_utf8(block).unwrap());
            }
            let mut buffer = vec![0; 64 * 1024];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("nothing came").unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.bytes.extend_from_slice(&buffer[..read]);
        }
    }
}
