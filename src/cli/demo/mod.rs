//! `groundd demo`: the whole service on one machine, seen from a subscriber's side.
//!
//! Nothing is faked: an RTSP server plays the bundled clip, a real broker carries the messages, the daemon runs from a
//! configuration file, and the table shows what `mosquitto_sub` received.

mod table;

use std::{path::Path, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::table::Table;
use super::{
    Exit, Failure, args, block_on,
    broker::{Broker, free_port},
    clip, model_folders, no_signals, outputs,
};
use crate::{
    daemon,
    ingest::{
        self, CameraConfig,
        rtsp_server::{RtspServer, RtspServerOptions},
    },
    types::CameraId,
};

const QUERIES: [(&str, &str); 5] = [
    ("person", "person"),
    ("red-jacket", "person in a red jacket"),
    ("red-car", "red car"),
    ("bus", "bus"),
    ("dog", "dog"),
];

/// What the table is made of.
const TOPICS: [&str; 3] = ["groundd/+/detections", "groundd/status", "groundd/+/status"];

/// What a camera of the user's own is called.
const OWN: &str = "yours";

pub(super) fn run(args: &args::Demo) -> Result<(), Failure> {
    if let Some(uri) = &args.camera {
        let id = CameraId::new(OWN).map_err(|e| Failure::of(Exit::Internal, &e))?;
        CameraConfig::new(id, uri).check().map_err(Failure::of_arguments)?;
    }
    let clip = clip()?;
    ingest::init()?;
    let folder = outputs::temporary("groundd-demo-")?;
    block_on(demo(args, clip, folder.path()))
}

async fn demo(args: &args::Demo, clip: std::path::PathBuf, folder: &Path) -> Result<(), Failure> {
    // First of all: whoever ended this in the midst of its start would leave the broker behind.
    let farewell = daemon::farewell().map_err(|e| no_signals(&e))?;
    let camera = RtspServer::start(RtspServerOptions { clip, mounts: vec!["street".into()], ..Default::default() })?;
    let mut broker = Broker::start(folder).await?;
    let http = free_port()?;
    let config = folder.join("groundd.toml");
    // A file is meant from here, not from beside the demo's own configuration.
    let here = std::env::current_dir().unwrap_or_default();
    let own = args.camera.as_deref().map(|uri| ingest::anchored(uri, &here));
    outputs::write(&config, &configuration(&camera.url("street"), own.as_deref(), broker.port(), http))?;

    let stop = CancellationToken::new();
    let daemon = tokio::spawn({
        let stop = stop.clone();
        async move { daemon::serve(&config, model_folders(), stop).await }
    });
    let mut table =
        Table::new(broker.subscribe(&TOPICS, &["%t", "%p"])?, banner(&camera.url("street"), broker.port(), http));
    let shown = tokio::select! {
        shown = show(args.seconds, &mut table, &mut broker, &daemon) => shown,
        () = farewell => Ok(()),
    };
    table.finish();
    stop.cancel();
    let served = daemon.await.map_err(|e| Failure::new(Exit::Internal, format!("the daemon failed: {e}")))?;
    drop(camera);
    broker.stop().await;
    served?;
    shown
}

/// Shows the table until the time is up, a signal came, or the daemon or the broker ended by itself.
async fn show<T>(
    seconds: Option<f64>,
    table: &mut Table,
    broker: &mut Broker,
    daemon: &tokio::task::JoinHandle<T>,
) -> Result<(), Failure> {
    let end = seconds.map(|s| Instant::now() + Duration::from_secs_f64(s));
    while !daemon.is_finished() && end.is_none_or(|end| Instant::now() < end) {
        table.step().await?;
        broker.alive()?;
    }
    Ok(())
}

fn banner(camera: &str, mqtt: u16, http: u16) -> String {
    format!(
        "camera     {camera}\nlive view  http://127.0.0.1:{http}/\n\
         subscribe  mosquitto_sub -h 127.0.0.1 -p {mqtt} -v -t 'groundd/+/detections'\n"
    )
}

/// The demo runs from a file like any other service.
fn configuration(street: &str, own: Option<&str>, mqtt: u16, http: u16) -> String {
    let mut text = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{mqtt}\"\nclient_id = \"groundd-demo\"\nsnapshot_seconds = 10.0\n\n\
         [http]\nlisten = \"127.0.0.1:{http}\"\n\n[[camera]]\nid = \"street\"\nuri = \"{street}\"\n"
    );
    if let Some(uri) = own {
        text += &format!("\n[[camera]]\nid = \"{OWN}\"\nuri = {}\n", toml::Value::String(uri.to_owned()));
    }
    for (id, words) in QUERIES {
        text += &format!("\n[[query]]\nid = \"{id}\"\ntext = \"{words}\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_demos_configuration_is_valid_even_with_an_awkward_camera() {
        let text = configuration("rtsp://127.0.0.1:1/street", Some("rtsp://u:p\"\\@h/x"), 2, 3);
        let config = Config::parse(&text, Path::new("demo.toml")).unwrap();
        assert_eq!(config.cameras.len(), 2);
        assert_eq!(config.queries.len(), QUERIES.len());
    }
}
