//! Which pipeline a camera gets: the embedded templates, the user's own, and the choice between them.
//!
//! Only numbers are pasted into a template. Text from users is set as properties later (see `pipeline`), so a URL
//! cannot add elements.

use std::{path::Path, sync::OnceLock};

use gstreamer::{self as gst, prelude::*};

use super::{CameraConfig, IngestError, address::Kind};
use crate::types::Size;

const EMBEDDED: [(&str, &str); 7] = [
    ("rtsp", include_str!("../../pipelines/rtsp.launch")),
    ("rtsp-nvidia", include_str!("../../pipelines/rtsp-nvidia.launch")),
    ("rtsp-va", include_str!("../../pipelines/rtsp-va.launch")),
    ("file", include_str!("../../pipelines/file.launch")),
    ("v4l2", include_str!("../../pipelines/v4l2.launch")),
    ("http", include_str!("../../pipelines/http.launch")),
    ("test", include_str!("../../pipelines/test.launch")),
];

impl Kind {
    /// The elements a camera of this kind cannot do without, and the Debian packages that have them.
    pub(super) fn needs(self) -> &'static [(&'static str, &'static str)] {
        const DECODE: (&str, &str) = ("decodebin", "gstreamer1.0-plugins-base");
        const APPSINK: (&str, &str) = ("appsink", "gstreamer1.0-plugins-base");
        const GOOD: &str = "gstreamer1.0-plugins-good";
        match self {
            Self::Rtsp => &[
                ("rtspsrc", GOOD),
                ("rtph264depay", GOOD),
                ("rtpjitterbuffer", GOOD),
                ("h264parse", "gstreamer1.0-plugins-bad"),
                ("avdec_h264", "gstreamer1.0-libav"),
                DECODE,
                APPSINK,
            ],
            Self::Http => &[("souphttpsrc", GOOD), ("multipartdemux", GOOD), ("jpegdec", GOOD), DECODE, APPSINK],
            Self::File => &[("filesrc", "libgstreamer1.0-0"), ("qtdemux", GOOD), DECODE, APPSINK],
            Self::V4l2 => &[("v4l2src", GOOD), DECODE, APPSINK],
            Self::Test => &[("videotestsrc", "gstreamer1.0-plugins-base"), APPSINK],
        }
    }
}

/// A template with its holes filled.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) name: String,
    pub(super) text: String,
}

impl Template {
    /// The template for `config`: the one it names, else the best one for its kind. A file in the `user` folder
    /// goes before an embedded template of the same name.
    pub(super) fn choose(config: &CameraConfig, user: Option<&Path>, canvas: Size) -> Result<Self, IngestError> {
        let name = match (&config.pipeline, Kind::of(config)?) {
            (Some(name), _) => name.as_str(),
            (None, Kind::Rtsp) => best_rtsp(),
            (None, Kind::Http) => "http",
            (None, Kind::File) => "file",
            (None, Kind::V4l2) => "v4l2",
            (None, Kind::Test) => "test",
        };
        let fail = |reason: String| IngestError::Template { camera: config.id.clone(), name: name.to_owned(), reason };
        let text = fill(&load(name, user).map_err(fail)?, canvas, config.latency_ms).map_err(fail)?;
        Ok(Self { name: name.to_owned(), text })
    }
}

fn load(name: &str, user: Option<&Path>) -> Result<String, String> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err("a template's name is letters, digits, `-` and `_`, without `.launch`".to_owned());
    }
    if let Some(path) = user.map(|folder| folder.join(format!("{name}.launch"))) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
        }
    }
    let embedded = EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned());
    embedded.ok_or_else(|| {
        let names: Vec<_> = EMBEDDED.iter().map(|(n, _)| *n).collect();
        let place = user.map_or_else(String::new, |f| format!(" nor in {}", f.display()));
        format!("there is none of this name among {}{place}", names.join(", "))
    })
}

/// Drops comments and replaces the holes by numbers.
fn fill(text: &str, canvas: Size, latency_ms: u32) -> Result<String, String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let filled = lines
        .collect::<Vec<_>>()
        .join("\n")
        .replace("${width}", &canvas.width.to_string())
        .replace("${height}", &canvas.height.to_string())
        .replace("${latency_ms}", &latency_ms.to_string());
    match filled.find("${") {
        None => Ok(filled),
        Some(at) => {
            let hole: String = filled[at..].chars().take_while(|c| *c != '}').chain(['}']).collect();
            Err(format!(
                "unknown hole {hole}; there are ${{width}}, ${{height}} and ${{latency_ms}}, and the URI is set on \
                 the element named `source`"
            ))
        }
    }
}

/// The RTSP template for this machine. Asked once: probing a GPU's decoder takes a moment.
fn best_rtsp() -> &'static str {
    static BEST: OnceLock<&str> = OnceLock::new();
    BEST.get_or_init(|| {
        if usable("nvh264dec") && usable("cudadownload") {
            prefer("nv");
            "rtsp-nvidia"
        } else if usable("vah264dec") && usable("vapostproc") {
            prefer("va");
            "rtsp-va"
        } else {
            "rtsp"
        }
    })
}

/// Whether the element exists and its hardware can be opened.
fn usable(element: &str) -> bool {
    let Ok(element) = gst::ElementFactory::make(element).build() else { return false };
    let opened = element.set_state(gst::State::Ready).is_ok();
    element.set_state(gst::State::Null).is_ok() && opened
}

/// Makes `decodebin` prefer this family of hardware decoders to software. Software templates are not affected: they
/// say `force-sw-decoders`.
fn prefer(family: &str) {
    for codec in ["h264", "h265", "jpeg", "av1", "vp8", "vp9"] {
        if let Some(factory) = gst::ElementFactory::find(&format!("{family}{codec}dec")) {
            factory.set_rank(gst::Rank::PRIMARY + 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_template_fills() {
        for (name, text) in EMBEDDED {
            let filled = fill(text, Size::new(512, 288), 100).unwrap();
            assert!(filled.contains("name=source") && filled.contains("name=out"), "{name}");
            assert!(!filled.contains('#') && !filled.contains("${"), "{name}");
        }
    }

    #[test]
    fn an_unknown_hole_is_named() {
        let error = fill("fakesrc location=${uri} ! appsink name=out", Size::new(1, 1), 0).unwrap_err();
        assert!(error.contains("${uri}") && error.contains("`source`"), "{error}");
    }

    #[test]
    fn a_users_template_goes_first_and_names_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file.launch"), "# mine\nfakesrc").unwrap();
        assert!(load("file", Some(folder.path())).unwrap().contains("mine"));
        assert!(load("rtsp", Some(folder.path())).unwrap().contains("rtspsrc"));
        assert!(load("../file", Some(folder.path())).is_err());
        assert!(load("absent", Some(folder.path())).unwrap_err().contains("rtsp-nvidia"));
    }
}
