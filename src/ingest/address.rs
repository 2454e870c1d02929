//! What a camera's URI stands for, and what of it may be shown.
//!
//! A password with a `/`, `?` or `#` in it, put into a URI as it is, moves the parts that a URL has:
//! `rtsp://admin:20/24@10.0.0.5/s` names the host `admin`, its port 20 and the path `/24@10.0.0.5/s`. What stays is the
//! `@` behind it. So an address with an `@` behind its host is neither connected to nor shown, not even where a login
//! stands before the host as well: that of `rtsp://me:a@b/c@10.0.0.5/s` is cut short. Who has an `@` in a path or a
//! query writes it as `%40`, which means the same.

use std::path::{Path, PathBuf};

use url::Url;

use super::{CameraConfig, IngestError};

/// Stands for a URI that is not shown.
const WITHHELD: &str = "<uri withheld>";

// Why a URI is refused. None of it repeats the URI, which may have a password anywhere.
const NO_KIND: &str =
    "not a kind of camera; use rtsp(s)://, http(s)://, file:// or a path, /dev/videoN or /dev/v4l/…, or test://";
const NO_HOST: &str = "no host name; write scheme://host:port/path";
const NO_SLASHES: &str = "write rtsp://host:port/path with two slashes, or file:///path with three";
const NO_FILE: &str = "there is no such file; a camera's address on the network begins with rtsp:// or http://, and \
                       special characters of its password are percent-encoded";
const ENCODE: &str = "special characters of the password must be percent-encoded (`/` as %2F, `?` as %3F, `#` as %23, \
                      `@` as %40), or put it in `password_file` and the user's name in `username`";

/// What a URI stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rtsp,
    Http,
    File,
    V4l2,
    Test,
}

impl Kind {
    /// Reads a camera's URI. One that leaves a doubt about what is its host and what a secret is refused.
    pub(super) fn of(config: &CameraConfig) -> Result<Self, IngestError> {
        Self::read(&config.uri).map_err(|reason| IngestError::Uri {
            camera: config.id.clone(),
            uri: public_uri(&config.uri),
            reason,
        })
    }

    fn read(uri: &str) -> Result<Self, String> {
        let kind = Self::named(uri).ok_or(NO_KIND)?;
        match kind {
            Self::Rtsp | Self::Http => drop(remote(uri)?),
            Self::File if !is_path(uri) => drop(file_of_url(uri).ok_or(NO_SLASHES)?),
            // `me:secret@host/s` and `host/s?password=secret` are addresses that lack their scheme.
            Self::File if uri.contains(['@', '?']) && !Path::new(uri).exists() => return Err(NO_FILE.to_owned()),
            Self::Test if uri.contains('@') => return Err(NO_KIND.to_owned()),
            Self::File | Self::V4l2 | Self::Test => {}
        }
        Ok(kind)
    }

    /// What the beginning of `uri` says.
    fn named(uri: &str) -> Option<Self> {
        match uri.split_once("://") {
            Some((scheme, _)) => Self::of_scheme(scheme),
            // What udev calls a camera, too: a number changes with the socket that it is plugged into.
            None if uri.starts_with("/dev/video") || uri.starts_with("/dev/v4l/") => Some(Self::V4l2),
            None => (!uri.is_empty()).then_some(Self::File),
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme.to_ascii_lowercase().as_str() {
            "rtsp" | "rtsps" => Some(Self::Rtsp),
            "http" | "https" => Some(Self::Http),
            "file" => Some(Self::File),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}

/// Whether `uri` names something across the network, rather than something of this machine.
pub fn is_remote(uri: &str) -> bool {
    matches!(Kind::named(uri), Some(Kind::Rtsp | Kind::Http))
}

/// `uri` without user name, password, query string and fragment: what may be logged and published. If it is not certain
/// where these are, nothing of it is shown.
pub fn public_uri(uri: &str) -> String {
    let shown = match Kind::read(uri) {
        Ok(Kind::File | Kind::V4l2 | Kind::Test) => Some(uri.to_owned()),
        // A scheme that no camera has is better seen.
        Ok(Kind::Rtsp | Kind::Http) | Err(_) => remote(uri).ok().and_then(|url| bare(url, uri)),
    };
    shown.unwrap_or_else(|| WITHHELD.to_owned())
}

/// Whether `text` may be an address, or a part of one, and so may have a password in it.
pub fn may_be_address(text: &str) -> bool {
    text.contains('@') || text.contains("://")
}

/// `uri`, starting at `folder` if it is a relative path.
pub fn anchored(uri: &str, folder: &Path) -> String {
    if is_path(uri) { folder.join(uri).to_string_lossy().into_owned() } else { uri.to_owned() }
}

/// The file that a `file://` URI or a path names.
pub(super) fn file_path(config: &CameraConfig) -> PathBuf {
    file_of_url(&config.uri).unwrap_or_else(|| PathBuf::from(&config.uri))
}

fn file_of_url(uri: &str) -> Option<PathBuf> {
    let url = Url::parse(uri).ok().filter(|url| url.scheme() == "file" && uri.contains("://"))?;
    url.to_file_path().ok()
}

/// Whether `uri` is written as a path, and not as a URL that may lack its slashes.
fn is_path(uri: &str) -> bool {
    let scheme = uri.split_once(':').and_then(|(scheme, _)| Kind::of_scheme(scheme));
    !uri.is_empty() && !uri.contains("://") && scheme.is_none()
}

/// The URL of something across the network, if it is certain which part of it is the host.
fn remote(uri: &str) -> Result<Url, String> {
    let url = Url::parse(uri).map_err(|e| format!("{e}; write scheme://host:port/path; {ENCODE}"))?;
    let (scheme, rest) = uri.split_once("://").unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(url.scheme()) || url.host_str().is_none_or(str::is_empty) {
        return Err(NO_HOST.to_owned());
    }
    // As written, since `..` takes parts of a path away. But for RTSP a backslash is a slash to the parser of URLs.
    let ends_host = |c: char| matches!(c, '/' | '?' | '#') || (c == '\\' && !url.scheme().starts_with("rtsp"));
    if rest.split_once(ends_host).is_some_and(|(_, behind)| behind.contains('@')) {
        return Err(format!("there is an `@` behind the host; {ENCODE}"));
    }
    Ok(url)
}

/// What may be shown of the URL that is written as `uri`, unless its credentials cannot be taken away.
fn bare(mut url: Url, uri: &str) -> Option<String> {
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    // Many recorders take `/user=…&password=…` for a path.
    let after_login = uri.rsplit('@').next().unwrap_or_default();
    if after_login.split(['?', '#']).next().is_some_and(|path| path.contains('=')) {
        url.set_path("/");
    }
    Some(url.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::CameraId;

    fn camera(uri: &str) -> CameraConfig {
        CameraConfig::new(CameraId::new("gate").unwrap(), uri)
    }

    #[test]
    fn the_beginning_of_a_uri_says_what_it_is() {
        for (uri, kind) in [
            ("rtsp://h/s", Kind::Rtsp),
            ("RTSPS://me:pw@[::1]:322/s", Kind::Rtsp),
            ("http://h", Kind::Http),
            ("https://h/a%40b?x=1", Kind::Http),
            ("file:///tmp/a@b.mp4", Kind::File),
            ("clips/a.mp4", Kind::File),
            ("/dev/video0", Kind::V4l2),
            ("/dev/v4l/by-id/usb-046d_C920-video-index0", Kind::V4l2),
            ("test://", Kind::Test),
        ] {
            assert_eq!(Kind::of(&camera(uri)).unwrap(), kind, "{uri}");
        }
        assert!(is_remote("rtsp://h/s") && is_remote("https://h/"));
        assert!(!is_remote("file:///etc/passwd") && !is_remote("http:/etc/passwd") && !is_remote("/dev/video0"));
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_a_secret() {
        for (uri, shown) in [
            ("rtsp://me:secret@h:8554/s?token=secret#secret", "rtsp://h:8554/s"),
            ("rtsp://me:sec@ret@h/s", "rtsp://h/s"),
            ("rtsp://h/a%40b", "rtsp://h/a%40b"),
            ("http://h/a.cgi?user=me&pwd=secret", "http://h/a.cgi"),
            ("rtsp://me:a=b@h:554/s", "rtsp://h:554/s"),
            ("rtsp://h:554/user=me&password=secret&channel=1", "rtsp://h:554/"),
            ("gopher://host/x", "gopher://host/x"),
            ("test://ball", "test://ball"),
            ("/dev/video0", "/dev/video0"),
            ("clips/a.mp4", "clips/a.mp4"),
            ("file:///tmp/a@b.mp4", "file:///tmp/a@b.mp4"),
        ] {
            assert_eq!(public_uri(uri), shown);
        }
    }

    #[test]
    fn an_address_in_doubt_is_neither_taken_nor_shown() {
        for (uri, words) in [
            ("rtsp://admin:2024/hunter@10.0.0.5/s", "%2F"),
            ("rtsp://admin:hunter/2@10.0.0.5/s", "%2F"),
            ("rtsp://admin:hunter?2@10.0.0.5/s", "%3F"),
            ("rtsp://admin:hunter#2@10.0.0.5/s", "%23"),
            ("rtsp://me:a@hunter#word@h/s", "%40"),
            ("rtsp://me:a@hunter/word@h/s", "%40"),
            ("http://hunter:20\\24@h/../s", "%2F"),
            ("http://hunter:20/24@h/../../s", "%2F"),
            ("admin:hunter@10.0.0.5/s", "percent-encoded"),
            ("//admin:hunter@10.0.0.5/s", "percent-encoded"),
            ("10.0.0.5/s?password=hunter", "rtsp://"),
            ("rtsp:/admin:hunter@10.0.0.5/s", "two slashes"),
            ("rtsp:admin:hunter@10.0.0.5/s", "two slashes"),
            ("rtsp:///admin:hunter@10.0.0.5/s", "no host name"),
            ("file://admin:hunter@10.0.0.5/s", "file:///"),
            ("test://admin:hunter/2@h", "not a kind of camera"),
            ("rstp://admin:hunter/2@h/s", "not a kind of camera"),
        ] {
            let error = Kind::of(&camera(uri)).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("`gate`"), "{uri}: {error}");
            assert!(error.contains(WITHHELD) && !error.contains("hunter"), "{uri}: {error}");
        }
    }

    #[test]
    fn a_file_with_an_at_sign_is_known_by_being_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("me@home.mp4");
        let uri = file.to_str().unwrap();
        assert!(Kind::of(&camera(uri)).is_err());
        assert_eq!(public_uri(uri), WITHHELD);
        std::fs::write(&file, "").unwrap();
        assert_eq!(Kind::of(&camera(uri)).unwrap(), Kind::File);
        assert_eq!(public_uri(uri), uri);
    }

    #[test]
    fn only_a_relative_path_is_anchored() {
        let there = |uri: &str| anchored(uri, Path::new("/etc/groundd"));
        assert_eq!(there("clips/a b.mp4"), "/etc/groundd/clips/a b.mp4");
        for uri in ["/clip.mp4", "/dev/video0", "test://ball", "rtsp://h/s", "rtsp:/h/s", "file:///clip.mp4", ""] {
            assert_eq!(there(uri), uri);
        }
    }

    #[test]
    fn paths_and_file_uris_name_files() {
        assert_eq!(file_path(&camera("file:///tmp/a%20b.mp4")), Path::new("/tmp/a b.mp4"));
        assert_eq!(file_path(&camera("clips/a.mp4")), Path::new("clips/a.mp4"));
    }

    /// A password as it is pasted, rich in what has a meaning in URLs; the word in it is found nowhere else.
    const PASTED: &str = "([/?#@:\\\\.0-9]|[ -~]|\\PC){0,8}Zq7x([/?#@:\\\\.0-9]|[ -~]|\\PC){0,8}";
    const PLACES: [&str; 15] = [
        "rtsp://admin:{}@10.0.0.5:554/s",
        "rtsp://{}@camera/s?x=1#y",
        "rtsps://admin:{}@camera/../s",
        "rtsp://me:{}@camera/a@b",
        "http://admin:{}@[::1]/a/../../s",
        "http://camera/s?user=me&pwd={}&x=1",
        "rtsp://camera/user=me&password={}&channel=1",
        "gopher://admin:{}@camera/s",
        "rtsp:/admin:{}@camera/s",
        "RTSP:admin:{}@camera/s",
        "http:/admin:{}@camera/../s",
        "rtsp//admin:{}@camera/s",
        "//admin:{}@camera/s",
        "admin:{}@10.0.0.5/s",
        "10.0.0.5/s?pwd={}",
    ];

    proptest! {
        #[test]
        fn no_password_is_ever_shown(place in 0..PLACES.len(), password in PASTED) {
            let uri = PLACES[place].replace("{}", &password);
            let said = Kind::of(&camera(&uri)).map_or_else(|error| error.to_string(), |kind| format!("{kind:?}"));
            for text in [public_uri(&uri), said] {
                prop_assert!(!text.to_lowercase().contains("zq7x"), "{uri:?}: {text}");
            }
        }
    }
}
