//! Child processes that never outlive their test.

use std::{
    borrow::BorrowMut,
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{wait_for, within};

/// No command that ends by itself takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running program whose stdout and stderr go to files; killed when dropped, with whatever it started.
pub struct Process {
    child: Child,
    /// It was waited for, so that its number may be another's by now.
    gone: bool,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Process {
    /// Starts `command`, logging into `folder` under `name`.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        Self::begin(&mut command, Stdio::null(), None, folder, name)
    }

    /// Starts `command` in a process group of its own, with a stdout of the caller's if there is one.
    fn begin(command: &mut Command, stdin: Stdio, stdout: Option<Stdio>, folder: &Path, name: &str) -> Self {
        let (out, err) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let file = |path: &Path| fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let stdout = stdout.unwrap_or_else(|| file(&out).into());
        command.stdin(stdin).stdout(stdout).stderr(file(&err)).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self { child, gone: false, stdout: out, stderr: err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Signals the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends the program and what it started.
    pub fn kill(&mut self) {
        if !self.gone {
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        }
        self.child.wait().ok();
        self.gone = true;
    }

    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for the end; panics with all that was printed if it does not come.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            let late = started.elapsed() >= limit;
            assert!(!late, "still running after {limit:?}:\n{}\n{}", self.lines().join("\n"), self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        self.gone |= status.is_some();
        status
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
        resident_kb(&self.pid().to_string())
    }

    /// Waits as [`wait_for`](super::wait_for) does; in vain, it shows what the program has said by then.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, limit: Duration, found: impl FnMut() -> Option<T>) -> T {
        within(limit, found).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}\n{}", self.log()))
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

/// Runs `command` to its end, as [`Command::output`] does; panics with what it printed if the end does not come.
#[track_caller]
pub fn finish(command: &mut Command) -> Output {
    finish_with(command, None, None)
}

/// The same with a stdout of the caller's.
#[track_caller]
pub fn finish_into(command: &mut Command, stdout: impl Into<Stdio>) -> Output {
    finish_with(command, Some(stdout.into()), None)
}

/// The same with a stdin that says `input`, and then ends.
#[track_caller]
pub fn finish_given(command: &mut Command, input: &str) -> Output {
    finish_with(command, None, Some(input))
}

#[track_caller]
fn finish_with(command: &mut Command, stdout: Option<Stdio>, input: Option<&str>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut process = Process::begin(command, stdin, stdout, folder.path(), "command");
    if let (Some(mut pipe), Some(input)) = (process.child.stdin.take(), input) {
        pipe.write_all(input.as_bytes()).unwrap();
    }
    let status = process.wait(PATIENCE);
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    Output { status, stdout: read(&process.stdout), stderr: read(&process.stderr) }
}

/// Runs `command` to its end, which must be a failure with this exit code that names all `words`. Nothing is on stdout, but
/// for what `check` reports.
#[track_caller]
pub fn fails(mut command: impl BorrowMut<Command>, code: i32, words: &[&str]) {
    let command = command.borrow_mut();
    let output = finish(command);
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{said}");
    let reports = command.get_args().next().is_some_and(|first| first == "check");
    assert!(reports || output.stdout.is_empty(), "{command:?} wrote to stdout:\n{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing from:\n{said}");
    }
    assert_sober(&output);
}

/// Nothing that it said is meant for a programmer.
#[track_caller]
pub fn assert_sober(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    for horror in ["panicked", "RUST_BACKTRACE", "unwrap", "thread '"] {
        assert!(!said.contains(horror), "{said}");
    }
}

/// Resident memory of a process (`self` is this one) in kilobytes.
pub fn resident_kb(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Command lines of the processes that have to do with `folder`, but for one.
pub fn processes(folder: &Path, but: u32) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let line = |pid: u32| {
        let text = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let [line, variables] =
            ["cmdline", "environ"].map(|file| String::from_utf8_lossy(&text(file)).replace('\0', " "));
        (line.contains(folder) || variables.contains(folder)).then_some(line)
    };
    pids.filter(|pid| *pid != but).filter_map(line).collect()
}

/// A number that no other call got.
fn fresh() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// Topics of messages that show how far a subscriber is; see [`Mosquitto::settle`].
const MARK: &str = "mark/";
const ANY_MARK: &str = "mark/+";

/// A mosquitto of our own; can be killed and started again on the same port.
pub struct Mosquitto {
    process: Option<Process>,
    folder: PathBuf,
    pub port: u16,
    /// With which its clients here log in.
    login: Vec<String>,
}

/// A subscriber of a [`Mosquitto`].
pub struct Listener(Process);

impl Listener {
    /// What it heard.
    pub fn lines(&self) -> Vec<String> {
        self.0.lines().into_iter().filter(|line| !line.starts_with(MARK)).collect()
    }
}

impl Mosquitto {
    pub fn start(folder: &Path) -> Self {
        Self::with(folder, "allow_anonymous true\n", Vec::new())
    }

    /// One that lets in nobody but `user`.
    pub fn guarded(folder: &Path, user: &str, password: &str) -> Self {
        let file = folder.join("passwords");
        let mut command = Command::new("mosquitto_passwd");
        command.args(["-b", "-c"]).arg(&file).args([user, password]);
        assert!(finish(&mut command).status.success());
        // Started by root it would go on as somebody who may not read that file.
        let rules = format!("user root\nallow_anonymous false\npassword_file {}\n", file.display());
        Self::with(folder, &rules, ["-u", user, "-P", password].map(str::to_owned).into())
    }

    fn with(folder: &Path, rules: &str, login: Vec<String>) -> Self {
        let port = super::free_port();
        let config = format!("listener {port} 127.0.0.1\npersistence false\n{rules}");
        fs::write(folder.join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { process: None, folder: folder.to_owned(), port, login };
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

    /// Stops all its work, or lets it go on, while its sockets stay open.
    pub fn freeze(&self, frozen: bool) {
        let process = self.process.as_ref().expect("it runs");
        process.signal(if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// One of mosquitto's clients, on its way to this broker.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(&self.login);
        command
    }

    /// A subscriber that writes `topic payload` lines; when this returns it has heard what is retained.
    pub fn subscribe(&self, name: &str, topics: &[&str]) -> Listener {
        self.listen(name, topics, &["-q", "1", "-F", "%t %p"])
    }

    /// A subscriber with these options of `mosquitto_sub`, whose lines begin with the topic.
    pub fn listen(&self, name: &str, topics: &[&str], options: &[&str]) -> Listener {
        let mut command = self.client("mosquitto_sub");
        command.args(options);
        // The marks are the last, so that what is retained elsewhere comes before them.
        for topic in topics.iter().chain(&[ANY_MARK]) {
            command.args(["-t", *topic]);
        }
        let listener = Listener(Process::start(command, &self.folder, name));
        self.settle(&listener);
        listener
    }

    /// Waits until `listener` has heard all that this broker has for it by now; it looks for a broker that was away by itself.
    pub fn settle(&self, listener: &Listener) {
        let mark = format!("{MARK}{}", fresh());
        let mut command = self.client("mosquitto_pub");
        // Retained, for a listener that has yet to subscribe.
        command.args(["-q", "1", "-r", "-m", "here", "-t", &mark]);
        assert!(finish(&mut command).status.success(), "the mark cannot be set");
        let heard = |line: &String| line.split(' ').next() == Some(mark.as_str());
        wait_for(&format!("the subscriber to hear {mark}"), Duration::from_secs(20), || {
            listener.0.lines().iter().any(heard).then_some(())
        });
    }

    /// Everything that is retained under `filter` right now, as `topic payload` lines.
    pub fn listed(&self, filter: &str) -> Vec<String> {
        self.subscribe(&format!("list-{}", fresh()), &[filter]).lines()
    }

    /// Whether nothing is retained under `topic`, however slow the machine: what is comes before the mark.
    pub fn cleared(&self, topic: &str) -> bool {
        // The message that clears it, which may come just now, is empty.
        self.listed(topic).iter().all(|line| line.trim_end() == topic)
    }

    /// What is retained under `topic` right now; `None` if nothing, or nothing that came in a second: absence is what
    /// [`Mosquitto::cleared`] shows.
    pub fn retained(&self, topic: &str) -> Option<String> {
        self.retained_within(topic, 1)
    }

    /// What is retained under `topic`, where there must be something: a slow machine gets more time.
    #[track_caller]
    pub fn kept(&self, topic: &str) -> String {
        let Some(kept) = self.retained_within(topic, 3) else { panic!("nothing is retained under {topic}") };
        kept
    }

    fn retained_within(&self, topic: &str, seconds: u32) -> Option<String> {
        /// What mosquitto's subscriber exits with when its time is over.
        const TIMED_OUT: i32 = 27;
        let mut command = self.client("mosquitto_sub");
        command.args(["-t", topic, "-C", "1", "-W", &seconds.to_string()]);
        let output = finish(&mut command);
        match output.status.code() {
            Some(0) => {
                let text = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
                // Empty is the message that clears a topic: it came just now.
                (!text.is_empty()).then_some(text)
            }
            Some(TIMED_OUT) => None,
            _ => panic!("cannot ask for {topic}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}
