//! A hub of models on this machine, with the faults that real ones and the way to them have. Content lies on a second server,
//! as large files' does, to which the first redirects.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;

/// The only repository.
pub const REPOSITORY: &str = "somebody/model";
/// Its commits, the first at first.
pub const COMMITS: [&str; 2] = ["0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"];
const PIECE: usize = 4096;

/// What the servers do wrong. Fields that count are used up.
#[derive(Debug, Default)]
pub struct Faults {
    /// Only who brings this token is served.
    pub token: Option<String>,
    /// Answers of this status, with these headers, before the right ones.
    pub answers: Vec<(u16, Option<String>)>,
    /// Likewise, of the content server.
    pub busy: Vec<(u16, Option<String>)>,
    /// Everybody is refused with this status.
    pub refuses: Option<u16>,
    /// Transfers that break after so many bytes.
    pub cuts: Vec<usize>,
    /// Every transfer gets this byte wrong.
    pub bent: Option<usize>,
    /// Pause between pieces.
    pub pause: Duration,
    /// Lengths that are not true, by path.
    pub lengths: BTreeMap<String, u64>,
    /// No `etag`.
    pub nameless: bool,
    /// Parts are not served.
    pub whole_only: bool,
    /// Names that the listing has besides.
    pub also: Vec<String>,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    /// Whether the content server was asked.
    pub content: bool,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    commit: usize,
    faults: Faults,
    asked: Vec<Asked>,
    sent: usize,
    content: String,
}

type Shared = Arc<Mutex<Inner>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two servers on free ports; they end with it.
pub struct Hub {
    shared: Shared,
    pub endpoint: String,
    _runtime: tokio::runtime::Runtime,
}

impl Hub {
    /// Serves the files of `folder`, by their paths in it.
    pub fn of(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(folder, folder, &mut files);
        Self::new(files)
    }

    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let shared = Shared::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let serve = |content: bool| {
            let state = (Arc::clone(&shared), content);
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let router = Router::new().fallback(answer).with_state(state);
                tokio::spawn(async move { axum::serve(listener, router).await });
                format!("http://{address}")
            })
        };
        let (endpoint, content) = (serve(false), serve(true));
        {
            let mut inner = locked(&shared);
            (inner.files, inner.content) = (files, content);
        }
        Self { shared, endpoint, _runtime: runtime }
    }

    pub fn faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut locked(&self.shared).faults);
    }

    /// Replaces a file and moves the branch.
    pub fn push(&self, path: &str, content: Vec<u8>) {
        let mut inner = locked(&self.shared);
        inner.files.insert(path.to_owned(), content);
        inner.commit = 1;
    }

    pub fn remove(&self, path: &str) {
        locked(&self.shared).files.remove(path).expect("there is such a file");
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.shared).asked.clone()
    }

    /// Bytes of content sent so far.
    pub fn sent(&self) -> usize {
        locked(&self.shared).sent
    }

    /// Length of all content.
    pub fn bytes(&self) -> usize {
        locked(&self.shared).files.values().map(Vec::len).sum()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Git keeps small text itself; everything else is kept by SHA-256.
fn is_large(path: &str) -> bool {
    path.contains(".onnx")
}

pub fn etag(path: &str, content: &[u8]) -> String {
    if is_large(path) {
        return hex(&Sha256::digest(content));
    }
    let mut hasher = sha1::Sha1::new_with_prefix(format!("blob {}\0", content.len()));
    hasher.update(content);
    hex(&hasher.finalize())
}

async fn answer(State((shared, content)): State<(Shared, bool)>, request: Request) -> Response {
    let header = |name: header::HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let asked = Asked {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        range: header(header::RANGE),
        token: header(header::AUTHORIZATION),
        content,
    };
    let head = request.method() == Method::HEAD;
    let mut inner = locked(&shared);
    inner.asked.push(asked.clone());
    let answers = if content { &mut inner.faults.busy } else { &mut inner.faults.answers };
    if !answers.is_empty() {
        let (status, wait) = answers.remove(0);
        let headers: HeaderMap = wait.iter().map(|wait| (header::RETRY_AFTER, wait.parse().unwrap())).collect();
        return (StatusCode::from_u16(status).unwrap(), headers).into_response();
    }
    if !content {
        if let Some(status) = inner.faults.refuses {
            return StatusCode::from_u16(status).unwrap().into_response();
        }
        let wanted = inner.faults.token.as_ref().map(|token| format!("Bearer {token}"));
        if wanted.is_some() && wanted != asked.token {
            return StatusCode::UNAUTHORIZED.into_response();
        }
    }
    let commit = COMMITS[inner.commit];
    let listing = |revision: &str| format!("/api/models/{REPOSITORY}/revision/{revision}");
    if asked.path == listing("main") || asked.path == listing(commit) {
        return list(&inner, commit);
    }
    let prefix = if content { "/content/".to_owned() } else { format!("/{REPOSITORY}/resolve/{commit}/") };
    let Some(path) = asked.path.strip_prefix(&prefix).map(str::to_owned) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(bytes) = inner.files.get(&path).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let length = inner.faults.lengths.get(&path).copied().unwrap_or(bytes.len() as u64);
    if !content && is_large(&path) {
        let mut response = Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, format!("{}/content/{path}", inner.content))
            .header("x-repo-commit", commit)
            .header("x-linked-size", length);
        if !inner.faults.nameless {
            response = response.header("x-linked-etag", format!("\"{}\"", etag(&path, &bytes)));
        }
        return response.body(Body::empty()).unwrap();
    }
    if head {
        let tag = format!("\"{}\"", etag(&path, &bytes));
        let response = Response::builder().header(header::ETAG, tag).header("x-repo-commit", commit);
        return response.header(header::CONTENT_LENGTH, length).body(Body::empty()).unwrap();
    }
    drop(inner);
    send(&shared, &bytes, asked.range.as_deref())
}

fn list(inner: &Inner, commit: &str) -> Response {
    let names = inner.files.keys().chain(&inner.faults.also);
    let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
    let told = serde_json::json!({"sha": commit, "siblings": siblings, "cardData": {"license": "cc-by-4.0"}});
    ([(header::CONTENT_TYPE, "application/json")], told.to_string()).into_response()
}

/// The content, from where the range begins, in pieces.
fn send(shared: &Shared, bytes: &[u8], range: Option<&str>) -> Response {
    let mut inner = locked(shared);
    let faults = &mut inner.faults;
    let from = range
        .filter(|_| !faults.whole_only)
        .map_or(0, |range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
    if from >= bytes.len() && from > 0 {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let mut rest = bytes[from..].to_vec();
    if let Some(at) = faults.bent.and_then(|at| at.checked_sub(from)).filter(|at| *at < rest.len()) {
        rest[at] ^= 1;
    }
    let end = if faults.cuts.is_empty() { rest.len() } else { faults.cuts.remove(0).min(rest.len()) };
    let pause = faults.pause;
    drop(inner);
    let whole = rest.len();
    let pieces: Vec<Bytes> = rest[..end].chunks(PIECE).map(Bytes::copy_from_slice).collect();
    let counter = Arc::clone(shared);
    let sent = tokio_stream::iter(pieces).then(move |piece| {
        let counter = Arc::clone(&counter);
        async move {
            tokio::time::sleep(pause).await;
            locked(&counter).sent += piece.len();
            Ok::<_, Infallible>(piece)
        }
    });
    let broken = (end < whole).then(|| Err(io::Error::other("cut")));
    let sent = sent.map(|piece| Ok::<_, io::Error>(piece.unwrap())).chain(tokio_stream::iter(broken));
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = Response::builder().status(status).header(header::CONTENT_LENGTH, whole);
    if from > 0 {
        response = response.header(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
    }
    response.body(Body::from_stream(sent)).unwrap()
}
