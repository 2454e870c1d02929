//! What would fail later, said now: a camera's configuration against this machine, and, on request, against the camera.

use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use gstreamer as gst;
use gstreamer_rtsp_server::gio;
use tokio::time::{Instant, timeout_at};

use super::{
    CameraConfig, End, GstOpener, IngestError, Opener, Outlet, Policy, Slot,
    address::{Kind, file_path},
    diagnose, pipeline,
    secrets::Access,
    template::Template,
};
use crate::types::Size;

/// The canvas used where the model's is not known; no result depends on it.
const ANY_CANVAS: Size = Size { width: 512, height: 288 };

/// Checks a camera without touching the network: its settings, the files it names, its template and the elements that
/// must be installed. `pipelines` is the folder of user templates.
pub fn check(config: &CameraConfig, pipelines: Option<&Path>) -> Result<(), IngestError> {
    super::init()?;
    config.check()?;
    let kind = Kind::of(config)?;
    check_files(config, kind)?;
    if config.pipeline.is_none() {
        for (element, package) in kind.needs().iter().copied() {
            if gst::ElementFactory::find(element).is_none() {
                return Err(IngestError::Element { camera: config.id.clone(), element: element.to_owned(), package });
            }
        }
    }
    let template = Template::choose(config, pipelines, ANY_CANVAS)?;
    pipeline::check(&template.text).map_err(|reason| IngestError::Template {
        camera: config.id.clone(),
        name: template.name,
        reason,
    })
}

/// Connects to the camera and waits for its first picture. Returns what came, for people: `H264 1280x720 @ 15`.
/// Blocks for at most `limit` and the time of a teardown; may be called with or without a runtime.
pub fn probe(config: &CameraConfig, pipelines: Option<&Path>, limit: Duration) -> Result<String, IngestError> {
    super::init()?;
    let no_picture = |reason: String| IngestError::NoPicture { camera: config.id.clone(), reason };
    let answer = thread::scope(|scope| {
        let work = || -> Result<String, String> {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            runtime.block_on(first_picture(config, pipelines, limit)).map_err(|end| end.text)
        };
        scope.spawn(work).join()
    });
    answer.unwrap_or_else(|_| Err("the check broke off".to_owned())).map_err(no_picture)
}

async fn first_picture(config: &CameraConfig, pipelines: Option<&Path>, limit: Duration) -> Result<String, End> {
    let slot = Arc::new(Slot::new(Policy::Latest, Arc::default()));
    let outlet = Outlet::new(config.id.clone(), ANY_CANVAS, Policy::Latest, None, slot, Arc::default());
    let mut source = GstOpener.open(config, pipelines, outlet.clone()).await?;
    let until = Instant::now() + limit;
    let answer = timeout_at(until, async {
        tokio::select! {
            biased;
            () = outlet.first() => Ok(source.describe()),
            end = source.ended() => Err(end),
        }
    });
    let answer = match answer.await {
        Ok(Ok(found)) => Ok(found),
        // What is known is said, even if there is no time left to find out more.
        Ok(Err(end)) => Err(timeout_at(until, source.explain(end.clone())).await.unwrap_or(end)),
        Err(_) => Err(diagnose::no_first_frame(config, limit)),
    };
    outlet.retire();
    source.stop().await;
    answer
}

fn check_files(config: &CameraConfig, kind: Kind) -> Result<(), IngestError> {
    let wrong = |what, path: &Path, reason: String| {
        Err(IngestError::File { camera: config.id.clone(), what, path: path.to_path_buf(), reason })
    };
    Access::of(config)?;
    if let Some(path) = &config.ca_file {
        if let Err(e) = fs::read(path) {
            return wrong("ca_file: cannot read", path, e.to_string());
        }
        if let Err(e) = gio::TlsCertificate::from_file(path) {
            return wrong("ca_file", path, format!("it holds no PEM certificate: {}", e.message()));
        }
    }
    match kind {
        Kind::File => {
            let path = file_path(config);
            // What is no file is not opened: a pipe would wait for who writes to it.
            let meta = fs::metadata(&path);
            let is_file = meta.as_ref().is_ok_and(fs::Metadata::is_file);
            match if is_file { fs::File::open(&path).and_then(|f| f.metadata()) } else { meta } {
                Ok(meta) if meta.is_file() => Ok(()),
                Ok(_) => wrong("video", &path, "it is not a file".to_owned()),
                Err(e) => wrong("cannot read the video", &path, format!("{e}; {}", diagnose::UNREADABLE)),
            }
        }
        Kind::V4l2 if !Path::new(&config.uri).exists() => {
            wrong("device", Path::new(&config.uri), "it does not exist; is the camera plugged in?".to_owned())
        }
        _ => Ok(()),
    }
}
