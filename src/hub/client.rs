//! Talking to the hub: two questions and one download, each tried again as long as that makes sense.

use std::time::{Duration, SystemTime};

use reqwest::{
    Method, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
    },
    redirect::Policy,
};
use serde::Deserialize;
use url::Url;

use super::{
    Digest, HubError, Progress, Reference,
    cache::{Cache, is_commit},
    is_set, variable,
};
use crate::{backoff::Backoff, types::chain};

/// Requests for one answer, the first included.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MOST_WAIT: Duration = Duration::from_secs(30);
/// A server that wants to be left alone for longer is taken at its word: somebody runs the command again later.
const MOST_PATIENCE: Duration = Duration::from_mins(2);
const CONNECT: Duration = Duration::from_secs(15);
/// Silence that ends a transfer.
const SILENCE: Duration = Duration::from_secs(30);
/// Redirects within the hub, as for a repository that was renamed.
const REDIRECTS: usize = 5;
/// A listing longer than this is not one of a model.
const LONGEST_LISTING: usize = 16 << 20;

/// A hub that can be asked.
#[derive(Debug)]
pub(super) struct Client {
    /// Where it is, without a slash at the end.
    endpoint: String,
    host: String,
    token: Option<HeaderValue>,
    /// Stops at redirects: what the hub says of a file is in the answer that redirects to it.
    asking: reqwest::Client,
    /// Follows them; the token does not go along to another host.
    loading: reqwest::Client,
}

/// What a repository holds.
#[derive(Debug)]
pub(super) struct Listing {
    /// The revision's commit.
    pub(super) commit: String,
    /// The paths of its files.
    pub(super) files: Vec<String>,
    /// What its card says.
    pub(super) licence: Option<String>,
}

/// What the hub says of a file.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: u64,
    pub(super) digest: Digest,
    pub(super) commit: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Client {
    /// `HF_ENDPOINT` or the hub that the library knows; `HF_TOKEN` or the token that the hub's tools left.
    pub(super) fn from_env(cache: &Cache) -> Result<Self, HubError> {
        let wrong = |variable, reason: String| HubError::Environment { variable, reason };
        let endpoint = endpoint().map_err(|reason| wrong("HF_ENDPOINT", reason))?;
        let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.filter(Url::has_host);
        let host = url.as_ref().map(|url| url.authority().rsplit('@').next().unwrap_or_default().to_owned());
        let host = host.ok_or_else(|| wrong("HF_ENDPOINT", format!("`{endpoint}` is not an http(s):// address")))?;
        let token = token(cache).map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        let token = token.transpose().map_err(|_| wrong("HF_TOKEN", "holds characters no token has".to_owned()))?;
        let token = token.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let build = |policy| {
            let agent = concat!("groundd/", env!("CARGO_PKG_VERSION"));
            let builder = reqwest::Client::builder().user_agent(agent).redirect(policy);
            builder.connect_timeout(CONNECT).read_timeout(SILENCE).build()
        };
        let unusable = |e: reqwest::Error| wrong("HTTPS_PROXY", format!("the HTTP client cannot start: {}", words(e)));
        let asking = build(Policy::none()).map_err(unusable)?;
        Ok(Self { endpoint, host, token, asking, loading: build(Policy::limited(10)).map_err(unusable)? })
    }

    /// The server's name, for people.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// An error that names the server.
    pub(super) fn trouble(&self, what: &str, reason: impl Into<String>) -> HubError {
        HubError::Server { what: what.to_owned(), host: self.host.clone(), reason: reason.into() }
    }

    /// The commit a revision stands at, and what it holds.
    pub(super) async fn listing(
        &self,
        reference: &Reference,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Listing, HubError> {
        let what = reference.to_string();
        let Reference { repository, revision } = reference;
        let url = format!("{}/api/models/{repository}/revision/{}", self.endpoint, revision.replace('/', "%2F"));
        let mut response = self.ask(Method::GET, url, &what, tell).await?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| self.trouble(&what, words(e)))? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_LISTING {
                return Err(self.trouble(&what, "the listing has no end"));
            }
        }
        let told: Result<Told, _> = serde_json::from_slice(&body);
        let told = told.map_err(|e| self.trouble(&what, format!("the listing is not one: {e}")))?;
        if !is_commit(&told.sha) {
            return Err(self.trouble(&what, format!("`{}` is no commit", told.sha.escape_debug())));
        }
        let text = |key: &str| told.card.as_ref().and_then(|card| card.get(key)?.as_str().map(str::to_owned));
        let licence =
            text("license").filter(|l| l != "other").or_else(|| text("license_name")).or_else(|| text("license"));
        Ok(Listing { commit: told.sha, files: told.siblings.into_iter().map(|s| s.rfilename).collect(), licence })
    }

    /// Length and hash of a file. They come from `x-linked-size` and `x-linked-etag` where the content lies elsewhere, and
    /// from `content-length` and `etag` otherwise.
    pub(super) async fn head(
        &self,
        reference: &Reference,
        commit: &str,
        path: &str,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Head, HubError> {
        let what = format!("{reference}: {path}");
        let response = self.ask(Method::HEAD, self.address(reference, commit, path), &what, tell).await?;
        let headers = response.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let digest = text("x-linked-etag").or_else(|| text(ETAG.as_str())).and_then(Digest::from_etag);
        let digest = digest.ok_or_else(|| {
            self.trouble(&what, "it gives no hash (`etag`) of the file, so nobody could tell whether it comes whole")
        })?;
        let bytes = text("x-linked-size").or_else(|| text(CONTENT_LENGTH.as_str())).and_then(|n| n.parse().ok());
        let bytes = bytes.ok_or_else(|| self.trouble(&what, "it does not say how long the file is"))?;
        Ok(Head { bytes, digest, commit: text("x-repo-commit").map(str::to_owned) })
    }

    /// A file's content from byte `from` on, and from which byte it is: 0 if the server does not do parts.
    pub(super) async fn content(
        &self,
        reference: &Reference,
        commit: &str,
        path: &str,
        from: u64,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(Response, u64), HubError> {
        let what = format!("{reference}: {path}");
        let url = self.address(reference, commit, path);
        let response = self.tried(&what, tell, || {
            let request = self.loading.get(&url).headers(self.headers()).header(ACCEPT_ENCODING, "identity");
            if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request }
        });
        let response = response.await?;
        match response.status() {
            StatusCode::OK => Ok((response, 0)),
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
                let first = range.and_then(|r| r.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
                match first {
                    Some(first) if first == from => Ok((response, from)),
                    _ => {
                        Err(self
                            .trouble(&what, format!("asked for bytes from {from}, it sends `{}`", range.unwrap_or(""))))
                    }
                }
            }
            // Nothing after `from`: what is here is longer than the file, or already all of it.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(self.trouble(&what, "it has no bytes after those that are here")),
            status => Err(self.trouble(&what, format!("it answers {status}"))),
        }
    }

    fn address(&self, reference: &Reference, commit: &str, path: &str) -> String {
        let escaped: Vec<_> =
            path.split('/').map(|part| percent_encoding::utf8_percent_encode(part, ESCAPED).to_string()).collect();
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, reference.repository, escaped.join("/"))
    }

    fn headers(&self) -> HeaderMap {
        self.token.iter().map(|token| (AUTHORIZATION, token.clone())).collect()
    }

    /// A request to the hub itself, which may redirect within itself but not elsewhere.
    async fn ask(
        &self,
        method: Method,
        mut url: String,
        what: &str,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Response, HubError> {
        for _ in 0..REDIRECTS {
            let response = self
                .tried(what, tell, || {
                    let request = self.asking.request(method.clone(), &url).headers(self.headers());
                    request.header(ACCEPT_ENCODING, "identity")
                })
                .await?;
            match inner(&url, &response) {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(self.trouble(what, "it redirects in circles"))
    }

    /// Sends what `request` makes until there is an answer that is not the server's momentary trouble.
    async fn tried(
        &self,
        what: &str,
        tell: &mut dyn FnMut(Progress<'_>),
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Response, HubError> {
        let mut backoff = Backoff::new(FIRST_WAIT, MOST_WAIT);
        loop {
            let (reason, asked) = match request().send().await {
                Ok(response) => match self.judged(response, what)? {
                    Ok(response) => return Ok(response),
                    Err(trouble) => trouble,
                },
                Err(e) if e.is_builder() || e.is_redirect() => return Err(self.trouble(what, words(e))),
                Err(e) => (words(e), None),
            };
            let wait = asked.unwrap_or_else(|| backoff.next(rand::random()));
            if asked.is_some() {
                backoff.next(0.0);
            }
            if backoff.failures() >= TRIES {
                return Err(self.trouble(what, format!("{reason} (tried {TRIES} times)")));
            }
            if wait > MOST_PATIENCE {
                return Err(
                    self.trouble(what, format!("{reason}, and wants to be asked again in {} s", wait.as_secs()))
                );
            }
            tell(Progress::Retry(&reason, wait.as_secs()));
            tokio::time::sleep(wait).await;
        }
    }

    /// An answer, or the server's momentary trouble and how long it asks to wait; an error if trying again cannot help.
    fn judged(&self, response: Response, what: &str) -> Result<Result<Response, (String, Option<Duration>)>, HubError> {
        let status = response.status();
        let (what, host) = (what.to_owned(), self.host.clone());
        match status.as_u16() {
            404 | 410 => Err(HubError::Missing { what, host }),
            status @ (401 | 403) => Err(HubError::Forbidden { what, host, status }),
            408 | 425 | 429 | 500..=599 => {
                let asked = response.headers().get(RETRY_AFTER).and_then(|value| wait(value.to_str().ok()?));
                Ok(Err((format!("it answers {status}"), asked)))
            }
            200..=399 | 416 => Ok(Ok(response)),
            _ => Err(self.trouble(&what, format!("it answers {status}"))),
        }
    }
}

/// Where an answer redirects to, if that is the same server and the answer says nothing of the file itself.
fn inner(url: &str, response: &Response) -> Option<String> {
    if !response.status().is_redirection() || response.headers().contains_key("x-linked-etag") {
        return None;
    }
    let from = Url::parse(url).ok()?;
    let to = from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    (to.scheme() == from.scheme() && to.authority() == from.authority()).then(|| to.into())
}

/// What a path may not hold in an address.
const ESCAPED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where the hub is: the library's own default unless the environment says otherwise.
fn endpoint() -> Result<String, String> {
    if let Some(own) = variable("HF_ENDPOINT") {
        return Ok(own.trim().trim_end_matches('/').to_owned());
    }
    // The library tells an address only as part of a file's.
    let api = hf_hub::api::tokio::ApiBuilder::from_cache(hf_hub::Cache::new(std::path::PathBuf::new())).build();
    let address = api.map_err(|e| e.to_string())?.model("a/b".to_owned()).url("c");
    let endpoint = address.strip_suffix("/a/b/resolve/main/c");
    endpoint.map(str::to_owned).ok_or_else(|| "unset, and the library names no hub; set it".to_owned())
}

fn token(cache: &Cache) -> Option<String> {
    let left = || {
        let implicit = !is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        implicit.then(|| std::fs::read_to_string(cache.token_file()).ok()).flatten()
    };
    variable("HF_TOKEN").or_else(left).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// `Retry-After`: seconds, or a date.
fn wait(value: &str) -> Option<Duration> {
    let date = || httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok();
    value.trim().parse().ok().map(Duration::from_secs).or_else(date)
}

/// An error and its causes, without the address: a signed one is a secret.
pub(super) fn words(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_a_date() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(1));
        assert!(wait(&soon).is_some_and(|wait| (50..=60).contains(&wait.as_secs())));
        assert_eq!(wait("Thu, 01 Jan 1970 00:00:00 GMT"), None);
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn the_library_knows_a_hub() {
        let url = Url::parse(&endpoint().unwrap()).unwrap();
        assert!(std::env::var_os("HF_ENDPOINT").is_some() || (url.scheme() == "https" && url.path() == "/"));
    }
}
