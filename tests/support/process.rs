//! Child processes that never outlive their test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// A running program whose stdout and stderr go to files; killed when dropped.
pub struct Process {
    child: Child,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Process {
    /// Starts `command`, logging into `folder` under `name`.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let file = |path: &Path| fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end; panics with the log if it does not come.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < limit, "still running after {limit:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub fn lines(&self) -> Vec<String> {
        // Snapshots are not text.
        let bytes = fs::read(&self.stdout).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }

    /// Resident memory in kilobytes.
    pub fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The daemon under test.
pub fn groundd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_groundd"))
}

/// A mosquitto of our own; can be killed and started again on the same port.
pub struct Mosquitto {
    process: Option<Process>,
    folder: PathBuf,
    pub port: u16,
}

impl Mosquitto {
    pub fn start(folder: &Path) -> Self {
        let port = super::free_port();
        let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
        fs::write(folder.join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { process: None, folder: folder.to_owned(), port };
        broker.restart();
        broker
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn restart(&mut self) {
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        self.process = Some(Process::start(command, &self.folder, "mosquitto"));
        let port = self.port;
        wait_for("mosquitto", Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// A subscriber that writes `topic payload` lines.
    pub fn subscribe(&self, name: &str, topics: &[&str]) -> Process {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-F", "%t %p"]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        let subscriber = Process::start(command, &self.folder, name);
        // It prints nothing when it is ready; the retained messages some tests look at come in any case.
        std::thread::sleep(Duration::from_millis(300));
        subscriber
    }

    /// What is retained under `topic` right now, `None` if nothing.
    pub fn retained(&self, topic: &str) -> Option<String> {
        let output = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", topic, "-C", "1", "-W", "1"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}
