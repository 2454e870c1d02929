//! A real mosquitto on a port of its own, certificates for it, and a subscriber that writes down what it hears.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions, mqttbytes::QoS};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{free_port, until};

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Anybody may do anything.
    pub(crate) fn open() -> Self {
        Self::with("allow_anonymous true")
    }

    /// `extra` are lines of its configuration; `{dir}` in them is its folder.
    pub(crate) fn with(extra: &str) -> Self {
        Self::prepared(extra, |_| {})
    }

    /// `prepare` puts files into its folder before it starts.
    pub(crate) fn prepared(extra: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        prepare(dir.path());
        let config = format!(
            "user root\nlistener {port} 127.0.0.1\nlog_dest file {{dir}}/log\nmax_queued_messages 100000\n{extra}\n"
        );
        fs::write(dir.path().join("conf"), config.replace("{dir}", dir.path().to_str().unwrap())).unwrap();
        let mut broker = Self { dir, port, child: None };
        broker.start();
        broker
    }

    pub(crate) fn start(&mut self) {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("conf"))
            .env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto must be installed for this test");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: no goodbye to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops (or lets go on) all its work while its sockets stay open.
    pub(crate) fn freeze(&self, frozen: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT }).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One message, as a subscriber saw it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) expiry: Option<u32>,
}

impl Heard {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// Listens to a filter, across reconnects.
pub(crate) struct Subscriber {
    heard: Arc<Mutex<Vec<Heard>>>,
    subscriptions: Arc<Mutex<u32>>,
    task: JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscriber {
    /// Subscribed when this returns, with `QoS` 0: the broker writes to it before it acknowledges, and keeps nothing back that
    /// would be lost with it.
    pub(crate) async fn new(port: u16, filter: &str) -> Self {
        Self::with(anybody(port), filter).await
    }

    pub(crate) async fn with(options: MqttOptions, filter: &str) -> Self {
        Self::at(options, filter, QoS::AtMostOnce).await
    }

    /// Hears each message with the `QoS` that it was published with.
    pub(crate) async fn exact(port: u16, filter: &str) -> Self {
        Self::at(anybody(port), filter, QoS::ExactlyOnce).await
    }

    async fn at(mut options: MqttOptions, filter: &str, qos: QoS) -> Self {
        options.set_max_packet_size(Some(16 << 20));
        let (heard, subscriptions) = (Arc::<Mutex<Vec<Heard>>>::default(), Arc::<Mutex<u32>>::default());
        let shared = (Arc::clone(&heard), Arc::clone(&subscriptions));
        let task = tokio::spawn(listen(options, filter.to_owned(), qos, shared));
        let subscriber = Self { heard, subscriptions, task };
        subscriber.subscribed(1).await;
        subscriber
    }

    /// Waits until it has subscribed `times` times.
    pub(crate) async fn subscribed(&self, times: u32) {
        until("the subscription", || *self.subscriptions.lock().unwrap() >= times).await;
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn on(&self, topic: &str) -> Vec<String> {
        self.heard().iter().filter(|m| m.topic == topic).map(|m| m.text().to_owned()).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

fn anybody(port: u16) -> MqttOptions {
    MqttOptions::new(format!("listener-{}", rand::random::<u32>()), "127.0.0.1", port)
}

type Shared = (Arc<Mutex<Vec<Heard>>>, Arc<Mutex<u32>>);

async fn listen(options: MqttOptions, filter: String, qos: QoS, (heard, subscriptions): Shared) {
    let (client, mut events) = AsyncClient::new(options, 10);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => client.subscribe(&filter, qos).await.unwrap(),
            Ok(Event::Incoming(Incoming::SubAck(_))) => *subscriptions.lock().unwrap() += 1,
            Ok(Event::Incoming(Incoming::Publish(p))) => heard.lock().unwrap().push(Heard {
                topic: String::from_utf8(p.topic.to_vec()).unwrap(),
                payload: p.payload.to_vec(),
                qos: p.qos as u8,
                retain: p.retain,
                expiry: p.properties.and_then(|p| p.message_expiry_interval),
            }),
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A certificate authority of one's own, with a server's and a client's certificate.
pub(crate) struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let this = Self { dir };
        this.openssl("req -x509 -subj /CN=test-ca -keyout ca.key -out ca.pem");
        for (name, names) in [("server", "DNS:localhost,IP:127.0.0.1"), ("client", "DNS:client")] {
            this.openssl(&format!(
                "req -x509 -subj /CN={name} -addext subjectAltName={names} -addext basicConstraints=critical,CA:FALSE \
                 -CA ca.pem -CAkey ca.key -keyout {name}.key -out {name}.pem"
            ));
        }
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `{name}` of these files in a broker's configuration.
    pub(crate) fn fill(&self, config: &str) -> String {
        config.replace("{certs}", self.dir.path().to_str().unwrap())
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
