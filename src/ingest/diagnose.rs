//! GStreamer's errors -> what a person needs at night: which camera, what happened, what to do.
//!
//! GStreamer 1.22 says "Failed to connect" for a refused connection, an unknown name, a bad certificate and a silent
//! server alike, so after such a failure the address is tried once more by hand.

use std::{
    error::Error,
    fs, io,
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use gstreamer::{self as gst, glib};
use native_tls::{Certificate, HandshakeError, TlsConnector};
use url::Url;

use super::{
    CameraConfig, End, RestartReason, Transport,
    address::{Kind, file_path},
    public_uri,
    source::off_thread,
};

/// What to do about a file that cannot be had.
pub(super) const UNREADABLE: &str = "check the path and that this user may read it";
/// Longest wait for each step of a diagnosis.
const STEP: Duration = Duration::from_secs(2);

/// Reads an error of the pipeline.
pub(super) fn classify(config: &CameraConfig, error: &glib::Error, debug: Option<&str>) -> End {
    let uri = public_uri(&config.uri);
    let detail = detail(debug);
    let said = format!("{} {detail}", told(error.message()));
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if has(&["Forbidden", "(403)"]) {
        let text = format!(
            "{uri}: the camera forbids this user to see this stream (403); check the user's rights, whether it is locked out, and how \
             many may watch at once"
        );
        return End::new(RestartReason::Unauthorized, text);
    }
    if error.matches(gst::ResourceError::NotAuthorized) || has(&["Unauthorized", "(401)"]) {
        return unauthorized(config, &uri);
    }
    if error.matches(gst::ResourceError::NotFound) || has(&["Not Found", "Not found", "(404)"]) {
        return not_found(config, &uri);
    }
    if has(&["TLS", "certificate"]) {
        return tls(config, &uri, &detail);
    }
    if error.matches(gst::CoreError::MissingPlugin) || error.matches(gst::StreamError::CodecNotFound) {
        // Sound has decoders as well, but none gives pictures; nor does a page that is shown to browsers.
        let text = match others(&said) {
            Some(kind) => format!("{uri}: this is {kind} and no video; give the address of the camera's video stream"),
            None => format!(
                "{uri}: no decoder for this stream ({}); install gstreamer1.0-libav and gstreamer1.0-plugins-bad",
                told(error.message())
            ),
        };
        return End::new(RestartReason::Open, text);
    }
    let file = matches!(Kind::of(config), Ok(Kind::File));
    let unreadable = error.matches(gst::StreamError::TypeNotFound)
        || error.matches(gst::StreamError::WrongType)
        || error.matches(gst::StreamError::Demux);
    if file && unreadable {
        let text = format!(
            "{} is not a video that can be played: {}; is it whole?",
            file_path(config).display(),
            told(error.message())
        );
        return End::new(RestartReason::Open, text);
    }
    let opening = error.matches(gst::ResourceError::OpenRead)
        || error.matches(gst::ResourceError::OpenReadWrite)
        || error.matches(gst::ResourceError::Failed)
        || error.matches(gst::ResourceError::Busy);
    let reason = if opening { RestartReason::Open } else { RestartReason::Stream };
    let more = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    let remedy = match file {
        true if opening => format!("; {UNREADABLE}"),
        true => "; is it whole?".to_owned(),
        false => format!("; {}", remedy(&said)),
    };
    End::new(reason, format!("{uri}: {}{more}{remedy}", told(error.message())))
}

/// What GStreamer calls something that has no pictures, in plain words. Where it speaks of video as well, that is what lacks a decoder.
fn others(said: &str) -> Option<&'static str> {
    let said = said.to_ascii_lowercase();
    if said.contains("video") {
        return None;
    }
    let kinds = [("audio", "sound"), ("aac", "sound"), ("html", "a web page"), ("text", "text"), ("opus", "sound")];
    kinds.into_iter().find(|(word, _)| said.contains(word)).map(|(_, kind)| kind)
}

/// What to do about a camera that answered something that nobody foresaw.
fn remedy(said: &str) -> &'static str {
    let code = |first: char| {
        said.split('(').any(|part| part.len() > 3 && part.starts_with(first) && part.as_bytes()[3] == b')')
    };
    if said.contains("(453)") {
        "too many watch it at once, or its network is too slow: free one, or take its smaller stream"
    } else if code('3') {
        "it sends elsewhere, and that again; give the address where the stream is"
    } else if code('4') {
        "check the path after the host name"
    } else if code('5') {
        "the camera's server has a fault; restart it if it stays so"
    } else {
        "does this address play with ffplay or VLC? If so, try the other transport (tcp, udp)"
    }
}

/// Finds out by hand why a network source could not be opened; other ends pass.
pub(super) async fn refine(config: &CameraConfig, end: End, has_video: bool) -> End {
    let network = matches!(Kind::of(config), Ok(Kind::Rtsp | Kind::Http));
    if !network || !matches!(end.reason, RestartReason::Open | RestartReason::Stream) {
        return end;
    }
    let camera = config.clone();
    let tried = off_thread("diagnose", STEP * 4, move || try_by_hand(&camera)).await.flatten();
    match tried {
        Some(found) => found,
        None if end.reason == RestartReason::Open && !has_video && config.transport == Transport::Udp => {
            End::new(end.reason, format!("{}; if the camera has no UDP, set transport = \"tcp\"", end.text))
        }
        None => end,
    }
}

/// Name, connection, certificate: the first of them that fails, if any.
fn try_by_hand(config: &CameraConfig) -> Option<End> {
    let uri = public_uri(&config.uri);
    let url = Url::parse(&config.uri).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = matches!(url.scheme(), "rtsps" | "https");
    let port = url.port_or_known_default().unwrap_or(if secure { 322 } else { 554 });
    let unreachable = |what: String| Some(End::new(RestartReason::Unreachable, format!("{uri}: {what}")));
    let addresses: Vec<_> = match (host.as_str(), port).to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(e) => return unreachable(format!("the name {host} cannot be resolved ({e}); check the name and DNS")),
    };
    let mut last = None;
    let stream = addresses.iter().find_map(|a| TcpStream::connect_timeout(a, STEP).map_err(|e| last = Some(e)).ok());
    let Some(stream) = stream else {
        return unreachable(match last.map(|e| e.kind()) {
            Some(io::ErrorKind::ConnectionRefused) => {
                format!("connection refused; is the camera's server running on port {port}?")
            }
            Some(io::ErrorKind::TimedOut) => {
                format!("no answer from {host}; is the camera on, and is port {port} open?")
            }
            kind => format!("cannot be reached ({})", kind.map_or("no address".to_owned(), |k| k.to_string())),
        });
    };
    if secure { handshake(config, &uri, &host, stream) } else { None }
}

fn handshake(config: &CameraConfig, uri: &str, host: &str, stream: TcpStream) -> Option<End> {
    let bounded = stream.set_read_timeout(Some(STEP)).and_then(|()| stream.set_write_timeout(Some(STEP)));
    bounded.ok()?;
    let mut builder = TlsConnector::builder();
    if let Some(path) = &config.ca_file {
        let authority = fs::read(path).ok().and_then(|pem| Certificate::from_pem(&pem).ok())?;
        builder.disable_built_in_roots(true).add_root_certificate(authority);
    }
    match builder.build().ok()?.connect(host, stream) {
        Ok(_) => None,
        Err(HandshakeError::Failure(e)) if is_plain(&e) => {
            let text = format!(
                "{uri}: the server does not encrypt on this port; use rtsp:// or http://, or its port for encryption"
            );
            Some(End::new(RestartReason::Tls, text))
        }
        Err(HandshakeError::Failure(e)) if !is_cut(&e) => Some(tls(config, uri, &e.to_string())),
        Err(_) => {
            let text = format!("{uri}: the camera broke off the encrypted connection; is it just starting?");
            Some(End::new(RestartReason::Unreachable, text))
        }
    }
}

/// Whether what came was no encryption at all.
fn is_plain(error: &native_tls::Error) -> bool {
    let said = error.to_string();
    ["wrong version number", "packet length too long", "http request"].iter().any(|words| said.contains(words))
}

/// Whether the connection ended, rather than one side refusing the other.
fn is_cut(error: &native_tls::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    error.to_string().contains("unexpected EOF")
}

/// The source opened, and then nothing.
pub(super) fn no_first_frame(config: &CameraConfig, limit: Duration) -> End {
    let seconds = limit.as_secs_f32();
    let text = match Kind::of(config) {
        Ok(Kind::File) => format!("{}: no picture within {seconds} s; is it whole?", file_path(config).display()),
        _ => format!(
            "{}: connected, but no picture within {seconds} s; does it send video, and keyframes that often?",
            public_uri(&config.uri)
        ),
    };
    End::new(RestartReason::NoFirstFrame, text)
}

fn unauthorized(config: &CameraConfig, uri: &str) -> End {
    let given = config.username.is_some() || Url::parse(&config.uri).is_ok_and(|u| !u.username().is_empty());
    let text = if given {
        format!("{uri}: the camera refuses this user name and password (401); check username and password_file")
    } else {
        format!("{uri}: the camera wants a user name and a password (401); set username and password_file")
    };
    End::new(RestartReason::Unauthorized, text)
}

fn not_found(config: &CameraConfig, uri: &str) -> End {
    let text = match Kind::of(config) {
        Ok(Kind::File) => format!("there is no file {}; {UNREADABLE}", file_path(config).display()),
        Ok(Kind::V4l2) => format!("there is no device {uri}; is the camera plugged in?"),
        _ => format!("{uri}: the server has no such path; check the part after the host name"),
    };
    End::new(RestartReason::NotFound, text)
}

fn tls(config: &CameraConfig, uri: &str, detail: &str) -> End {
    let remedy = match &config.ca_file {
        Some(path) => {
            format!("{} must hold the certificate that signed it, and the host name must match", path.display())
        }
        None => "if it is self-signed or from a private authority, set ca_file".to_owned(),
    };
    End::new(RestartReason::Tls, format!("{uri}: the server's certificate is not trusted ({detail}); {remedy}"))
}

/// The part of GStreamer's debug text that is for people: its last line, without source positions.
fn detail(debug: Option<&str>) -> String {
    let last = debug.and_then(|d| d.lines().skip(1).last()).unwrap_or_default();
    told(last).to_owned()
}

/// What GStreamer says, up to the first address in it. HTTP sources tell theirs with its query, where passwords are
/// kept too, and the one they were redirected to.
fn told(text: &str) -> &str {
    let address = text.find("://").map(|at| text[..at].rfind(char::is_whitespace).unwrap_or(0));
    let end = text.find("URL:").into_iter().chain(address).min().unwrap_or(text.len());
    text[..end].trim().trim_end_matches(['.', ','])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ingest::secrets::Access, types::CameraId};

    #[test]
    fn what_gstreamer_says_is_told_up_to_its_first_address() {
        for (said, kept) in [
            ("Could not connect.", "Could not connect"),
            ("Bad Gateway (502), URL: http://h/?pwd=x, Redirect to: http://h/y", "Bad Gateway (502)"),
            ("The location (\"http://h/?pwd=x\") set, is not valid", "The location"),
            ("http://h/?pwd=x is gone", ""),
        ] {
            assert_eq!(told(said), kept);
        }
    }

    #[test]
    fn who_may_not_is_told_apart_from_who_is_not_known() {
        let camera = CameraConfig::new(CameraId::new("gate").unwrap(), "http://camera/s.cgi");
        for (debug, words) in
            [("Unauthorized (401), URL: http://camera/", "(401)"), ("Forbidden (403), URL: http://camera/", "(403)")]
        {
            let error = glib::Error::new(gst::ResourceError::NotAuthorized, "Not authorised.");
            let end = classify(&camera, &error, Some(&format!("a.c(1): f (): /Source:source:\n{debug}")));
            assert!(end.reason == RestartReason::Unauthorized && end.text.contains(words), "{}", end.text);
        }
    }

    #[test]
    fn what_has_no_pictures_is_told_from_what_lacks_a_decoder() {
        let camera = CameraConfig::new(CameraId::new("gate").unwrap(), "http://camera/s.cgi");
        for (said, words) in [
            ("No decoder available for type 'audio/mpeg, mpegversion=(int)4'.", "this is sound and no video"),
            ("No decoder available for type 'text/html'.", "this is a web page"),
            ("No decoder available for type 'video/x-h265'.", "install gstreamer1.0-libav"),
            ("Missing decoder: AAC (audio/mpeg), Missing decoder: H.265 (video/x-h265)", "install gstreamer1.0-libav"),
        ] {
            let end = classify(&camera, &glib::Error::new(gst::StreamError::CodecNotFound, said), None);
            assert!(end.text.contains(words), "{}", end.text);
        }
    }

    #[test]
    fn an_answer_that_nobody_foresaw_comes_with_something_to_do() {
        let camera = CameraConfig::new(CameraId::new("gate").unwrap(), "rtsp://camera/s");
        for (said, words) in [
            ("Not Enough Bandwidth (453)", "too many watch it"),
            ("Found (302)", "give the address"),
            ("Bad Request (400)", "check the path"),
            ("Internal Server Error (500)", "restart it"),
            ("(System error)", "does this address play"),
        ] {
            let debug = format!("a.c(1): f (): /Source:source:\nUnhandled error ({said})");
            let end = classify(&camera, &glib::Error::new(gst::ResourceError::Read, "Fault."), Some(&debug));
            assert!(end.text.contains(words), "{}", end.text);
        }
    }

    proptest! {
        #[test]
        fn a_password_in_a_query_does_not_come_back_from_gstreamer(
            password in "([/?#:]|[ -~]|\\PC){0,8}Zq7x([/?#:]|[ -~]|\\PC){0,8}",
        ) {
            let uri = format!("http://camera/s.cgi?user=me&pwd={password}");
            let camera = CameraConfig::new(CameraId::new("gate").unwrap(), &uri);
            let location = Access::of(&camera).map(|access| access.location).unwrap();
            let debug = format!("a.c(1): f (): /Source:source:\nFault (500), URL: {location}, Redirect to: {location}");
            let message = format!("Cannot open {location}.");
            for error in [
                glib::Error::new(gst::ResourceError::NotAuthorized, &message),
                glib::Error::new(gst::ResourceError::NotFound, &message),
                glib::Error::new(gst::ResourceError::OpenRead, &message),
                glib::Error::new(gst::StreamError::CodecNotFound, &message),
                glib::Error::new(gst::StreamError::Failed, &message),
            ] {
                let end = classify(&camera, &error, Some(&debug));
                prop_assert!(!end.text.to_lowercase().contains("zq7x"), "{}", end.text);
            }
        }
    }
}
