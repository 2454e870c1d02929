//! A mosquitto of our own, and subscribers to it: the demo and the benchmark see what any other program would see.

use std::{net::TcpListener, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use super::{Exit, Failure, outputs};

/// A running mosquitto on loopback; killed when dropped. It and its subscribers are in groups of their own, which a terminal's
/// Ctrl-C does not reach: whoever started them says goodbye first.
pub(super) struct Broker {
    child: Child,
    port: u16,
}

/// What `mosquitto_sub` prints, and the process behind it.
pub(super) struct Subscription {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

/// The parts of a line are separated by this; no topic and no JSON can contain it.
pub(super) const SEPARATOR: char = '\u{1f}';

impl Broker {
    pub(super) async fn start(folder: &Path) -> Result<Self, Failure> {
        let port = free_port()?;
        let config = folder.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\nlog_type error\n"
        );
        outputs::write(&config, &text)?;
        // Debian puts the server where only root's PATH looks.
        let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|e| missing(program, &e))?;
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(Self { child, port });
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::new(Exit::Unavailable, format!("mosquitto ended at once: {status}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Failure::new(Exit::Unavailable, format!("mosquitto does not answer on port {port}")))
    }

    /// Whether it still runs; an error says how it ended.
    pub(super) fn alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::new(Exit::Unavailable, format!("the broker ended: {status}"))),
            Err(e) => Err(Failure::new(Exit::Unavailable, format!("the broker cannot be watched: {e}"))),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Subscribes to `topics`; a line is made of `parts`, which are `mosquitto_sub`'s `-F` codes, as in `%t`.
    pub(super) fn subscribe(&self, topics: &[&str], parts: &[&str]) -> Result<Subscription, Failure> {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-F", &parts.join(&SEPARATOR.to_string())]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|e| missing("mosquitto_sub", &e))?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::new(Exit::Internal, "mosquitto_sub has no stdout"))?;
        Ok(Subscription { lines: BufReader::new(stdout).lines(), child })
    }

    pub(super) async fn stop(mut self) {
        // It may have ended already; either way it is gone afterwards.
        self.child.kill().await.ok();
    }
}

impl Subscription {
    /// The next line; `None` once the subscriber has ended.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<String>> {
        self.lines.next_line().await
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// A port nobody uses now. Between this and its use it could be taken; the error would say so.
pub(super) fn free_port() -> Result<u16, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Failure::new(Exit::Unavailable, format!("no free port on 127.0.0.1: {e}")))
}

fn missing(program: &str, error: &std::io::Error) -> Failure {
    let remedy = "install the Debian packages mosquitto and mosquitto-clients";
    Failure::new(Exit::Unavailable, format!("cannot start {program}: {error}; {remedy}"))
}
