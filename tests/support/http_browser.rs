//! Debian's Chromium, driven over its debugging pipe: no driver program, no network, nothing left running.

use std::{
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex, MutexGuard},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// One browser at a time: two on a small machine are slower than one after the other.
static TURN: Mutex<()> = Mutex::const_new(());
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-pipe",
];

/// A browser with one tab, and a profile of its own. Dropping it kills the whole process group.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    next: AtomicU64,
    /// Exceptions, console errors and refused loads.
    pub(crate) complaints: Vec<String>,
    _profile: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Browser {
    /// Starts Chromium with a tab of `width` x `height`; a `phone` has touch and sharp pixels.
    pub(crate) async fn start(width: u32, height: u32, phone: bool) -> Self {
        let turn = TURN.lock().await;
        let profile = tempfile::tempdir().unwrap();
        // The shell turns our two pipes into the descriptors 3 and 4 that the browser talks on.
        let mut child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null", "chromium"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            // What it leaves when it is killed goes with its profile.
            .env("TMPDIR", profile.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("sh starts");
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let next = AtomicU64::new(1);
        let mut browser =
            Self { child, to, from, session: None, next, complaints: Vec::new(), _profile: profile, _turn: turn };
        let tab = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone});
        browser.call("Emulation.setDeviceMetricsOverride", metrics).await;
        browser
    }

    /// Opens `url`.
    pub(crate) async fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url})).await;
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.until("document.readyState === 'complete' && location.protocol === 'http:'").await;
    }

    /// Has a script run in every page opened from now on, before the page's own.
    pub(crate) async fn before(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    }

    /// The value of a JavaScript expression, awaited.
    pub(crate) async fn eval(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{script} threw {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, script: &str) {
        let waiting = async {
            while self.eval(script).await != json!(true) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let came = timeout(Duration::from_secs(20), waiting).await.is_ok();
        assert!(came, "never true: {script}; the page: {}", self.eval("document.body.innerText").await);
    }

    /// Presses a key.
    pub(crate) async fn key(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key})).await;
        }
    }

    /// A picture of the tab as PNG.
    pub(crate) async fn screenshot(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        data_encoding::BASE64.decode(answer["data"].as_str().unwrap().as_bytes()).unwrap()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next.fetch_add(1, Relaxed);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).await.expect("the browser listens: is Debian's chromium installed?");
        loop {
            let mut bytes = Vec::new();
            let read = timeout(PATIENCE, self.from.read_until(0, &mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("no answer to {method}")).unwrap();
            assert!(read > 0, "the browser went away: is Debian's chromium installed?");
            bytes.pop();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.listen(&answer);
        }
    }

    fn listen(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(params["entry"].to_string());
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => self.complaints.push(params.to_string()),
            _ => {}
        }
    }
}
