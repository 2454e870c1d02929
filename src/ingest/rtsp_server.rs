//! An RTSP server in this process that plays a clip for ever: the camera of `groundd demo` and of the tests.
//!
//! Each server has a thread and a main context of its own, so several can run side by side and be stopped alone.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use gstreamer::{self as gst, glib, prelude::*};
use gstreamer_app as gst_app;
use gstreamer_rtsp_server::{
    RTSP_PERM_MEDIA_FACTORY_ACCESS, RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, RTSP_TOKEN_MEDIA_FACTORY_ROLE, RTSPAuth,
    RTSPFilterResult, RTSPMediaFactory, RTSPServer as GstRtspServer, RTSPToken, gio, prelude::*,
};
use tracing::warn;

use super::{IngestError, rtsp_clip::Clip, timeline::Timeline};

/// The role of everybody who may watch.
const VIEWER: &str = "viewer";
/// Longest wait for the server to come up.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What to serve, and to whom.
#[derive(Clone, Default)]
pub struct RtspServerOptions {
    /// A file with H.264, H.265 or MJPEG video.
    pub clip: PathBuf,
    /// The paths to play it at, without leading slash; each plays on its own.
    pub mounts: Vec<String>,
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// User name and password to ask for.
    pub credentials: Option<(String, String)>,
    /// How many times faster than it was taken the clip is played; 0 is 1.
    pub speed: u32,
    /// Certificate and key (PEM) for RTSPS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A running server. Dropping it stops it.
pub struct RtspServer {
    port: u16,
    secure: bool,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
    timelines: BTreeMap<String, Timeline>,
}

impl RtspServer {
    /// Starts serving; the server answers when this returns.
    pub fn start(options: RtspServerOptions) -> Result<Self, IngestError> {
        super::init()?;
        let clip = Arc::new(Clip::load(&options.clip)?.faster(options.speed));
        let timelines: BTreeMap<String, Timeline> =
            options.mounts.iter().map(|mount| (mount.clone(), Timeline::new(Arc::clone(&clip)))).collect();
        let secure = options.tls.is_some();
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let (up, started) = mpsc::channel();
        let (running, followed) = (main_loop.clone(), timelines.clone());
        let thread = std::thread::Builder::new()
            .name("rtsp-server".to_owned())
            .spawn(move || serve(&options, &clip, &followed, &running, &up))
            .map_err(|e| IngestError::Server(format!("start: {e}")))?;
        let mut server = Self { port: 0, secure, main_loop, thread: Some(thread), timelines };
        server.port = started
            .recv_timeout(START_LIMIT)
            .map_err(|_| IngestError::Server("start: it does not come up".to_owned()))??;
        Ok(server)
    }

    /// Where `mount` is played.
    pub fn url(&self, mount: &str) -> String {
        let scheme = if self.secure { "rtsps" } else { "rtsp" };
        format!("{scheme}://127.0.0.1:{}/{mount}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// When the pictures of `mount` are sent.
    pub fn timeline(&self, mount: &str) -> Option<&Timeline> {
        self.timelines.get(mount)
    }

    /// Hangs up on everybody and frees the port.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        self.main_loop.quit();
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            warn!("the RTSP server's thread panicked");
        }
    }
}

fn serve(
    options: &RtspServerOptions,
    clip: &Arc<Clip>,
    timelines: &BTreeMap<String, Timeline>,
    main_loop: &glib::MainLoop,
    up: &mpsc::Sender<Result<u16, IngestError>>,
) {
    let context = main_loop.context();
    let served = context.with_thread_default(|| match configure(options, clip, timelines) {
        Err(e) => drop(up.send(Err(e))),
        Ok(server) => match server.attach(Some(&context)) {
            Err(_) => {
                let what = format!("listen on 127.0.0.1:{}; is the port taken?", options.port);
                drop(up.send(Err(IngestError::Server(what))));
            }
            Ok(id) => {
                let port = u16::try_from(server.bound_port()).unwrap_or_default();
                // A quit that comes before the loop runs would be lost, so the answer is given from inside it.
                let up = up.clone();
                context.invoke_local(move || drop(up.send(Ok(port))));
                main_loop.run();
                if let Some(source) = context.find_source_by_id(&id) {
                    source.destroy();
                }
                hang_up(&server);
                while context.iteration(false) {}
            }
        },
    });
    if served.is_err() {
        drop(up.send(Err(IngestError::Server("start: its main context is taken".to_owned()))));
    }
}

fn hang_up(server: &GstRtspServer) {
    server.client_filter(Some(&mut |_, _| RTSPFilterResult::Remove));
    if let Some(pool) = server.session_pool() {
        pool.filter(Some(&mut |_, _| RTSPFilterResult::Remove));
    }
}

fn configure(
    options: &RtspServerOptions,
    clip: &Arc<Clip>,
    timelines: &BTreeMap<String, Timeline>,
) -> Result<GstRtspServer, IngestError> {
    let server = GstRtspServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&options.port.to_string());
    server.set_auth(auth(options)?.as_ref());
    let mounts = server.mount_points().ok_or_else(|| IngestError::Server("start: no mount points".to_owned()))?;
    for (mount, timeline) in timelines {
        mounts.add_factory(&format!("/{mount}"), factory(clip, timeline.clone()));
    }
    Ok(server)
}

/// A factory whose media is shared by all viewers and fed from the clip.
fn factory(clip: &Arc<Clip>, timeline: Timeline) -> RTSPMediaFactory {
    let factory = RTSPMediaFactory::new();
    factory.set_launch(clip.launch());
    factory.set_shared(true);
    let role = gst::Structure::builder(VIEWER)
        .field(RTSP_PERM_MEDIA_FACTORY_ACCESS.as_str(), true)
        .field(RTSP_PERM_MEDIA_FACTORY_CONSTRUCT.as_str(), true)
        .build();
    factory.add_role_from_structure(&role);
    let clip = Arc::clone(clip);
    factory.connect_media_configure(move |_, media| {
        let Ok(bin) = media.element().downcast::<gst::Bin>() else { return };
        if let Some(pay) = bin.by_name("pay0") {
            timeline.follow(&pay);
        }
        if let Some(feed) = bin.by_name("feed").and_then(|f| f.downcast::<gst_app::AppSrc>().ok()) {
            clip.feed(&feed);
        }
    });
    factory
}

/// Who may connect, and over what; `None` is everybody in the clear.
fn auth(options: &RtspServerOptions) -> Result<Option<RTSPAuth>, IngestError> {
    if options.credentials.is_none() && options.tls.is_none() {
        return Ok(None);
    }
    let auth = RTSPAuth::new();
    let mut token = RTSPToken::builder().field(RTSP_TOKEN_MEDIA_FACTORY_ROLE.as_str(), VIEWER).build();
    match &options.credentials {
        Some((user, password)) => auth.add_basic(&RTSPAuth::make_basic(user, password), &token),
        None => auth.set_default_token(Some(&mut token)),
    }
    if let Some((certificate, key)) = &options.tls {
        let identity = gio::TlsCertificate::from_files(certificate, key)
            .map_err(|e| IngestError::Server(format!("use {}: {}", certificate.display(), e.message())))?;
        auth.set_tls_certificate(Some(&identity));
    }
    Ok(Some(auth))
}
