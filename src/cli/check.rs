//! `groundd check`: everything that would fail later, said now.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Exit, Failure, args, model_folders, runtime};
use crate::{config::Config, daemon::Revisions, ground, http, ingest, publish};

/// How long one camera or the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Collects what was found; the highest of the failures' exit codes is the command's.
struct Report {
    failed: Vec<Exit>,
}

impl Report {
    /// Something that cannot work, and keeps nothing else from it, which is no failure.
    fn warn(what: &str, why: &str) {
        // As below.
        writeln!(io::stdout(), "warn  {what}: {why}").ok();
    }

    fn line(&mut self, what: &str, result: Result<String, Failure>) {
        let text = match result {
            Ok(detail) => format!("ok    {what}: {detail}"),
            Err(failure) => {
                self.failed.push(failure.exit);
                format!("FAIL  {what}: {}", failure.message)
            }
        };
        // Whoever closed stdout still gets the exit code.
        writeln!(io::stdout(), "{text}").ok();
    }
}

pub(super) fn run(args: &args::Check) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let mut report = Report { failed: Vec::new() };
    let counts = format!("{} cameras, {} queries", config.cameras.len(), config.queries.len());
    report.line("configuration", Ok(counts));
    report.line("gstreamer", ingest::init().map(|()| "present".to_owned()).map_err(Failure::from));
    if !args.syntax {
        check_model(&config, &mut report);
    }
    let unconnected = format!("not connected: {}", if args.syntax { "--syntax" } else { "--offline" });
    for camera in config.cameras.values() {
        let checked = ingest::check(camera, config.pipelines.as_deref()).map_err(Failure::from).and_then(|()| {
            if args.offline || args.syntax {
                Ok(format!("{} ({unconnected})", ingest::public_uri(&camera.uri)))
            } else {
                Ok(ingest::probe(camera, config.pipelines.as_deref(), PATIENCE)?)
            }
        });
        let what = format!("camera {}", camera.id);
        match checked {
            // One camera that cannot work must not keep the others from being reloaded, as it keeps none from being started.
            Err(failure) if args.syntax => Report::warn(&what, &failure.message),
            checked => report.line(&what, checked),
        }
    }
    let runtime = runtime()?;
    if let Some(address) = config.http.listen
        && !args.syntax
    {
        let bound = runtime.block_on(http::bind(address));
        let answer = match bound {
            Ok(_) => Ok(format!("{address} is free")),
            Err(http::HttpError::InUse(_)) if is_groundd(address) => Ok(format!("a running groundd has {address}")),
            Err(error) => Err(error.into()),
        };
        report.line("http", answer);
    }
    let broker = if args.offline || args.syntax {
        let mut mqtt = config.mqtt.clone();
        if args.syntax {
            // A reload takes none of this up, and systemd hides the service's credentials from who checks before it.
            (mqtt.password_file, mqtt.ca_file, mqtt.cert_file, mqtt.key_file) = (None, None, None, None);
            mqtt.spool_dir = None;
        }
        let checked = publish::check(&mqtt);
        checked.map(|broker| format!("{broker} ({unconnected})")).map_err(Failure::from)
    } else {
        runtime.block_on(publish::probe(&config.mqtt, PATIENCE)).map_err(Failure::from)
    };
    report.line("broker", broker);
    runtime.shutdown_background();
    match report.failed.iter().max_by_key(|exit| **exit as u8) {
        None => Ok(()),
        Some(exit) => Err(Failure::new(*exit, format!("{} of the above would fail", report.failed.len()))),
    }
}

/// Whether a groundd listens there already: it is no fault that the service runs while its configuration is checked.
fn is_groundd(address: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(16 * 1024 * 1024).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("groundd_build_info"))
}

fn check_model(config: &Config, report: &mut Report) {
    let grounder = match ground::load(&config.model, &model_folders()) {
        Ok(grounder) => grounder,
        Err(error) => return report.line("model", Err(error.into())),
    };
    report.line("model", Ok(grounder.describe().to_string()));
    let checker = grounder.checker();
    for query in Revisions::default().apply(&config.queries).iter() {
        let verdict = checker(query).map(|()| format!("\"{}\"", query.text));
        report.line(&format!("query {}", query.id), verdict.map_err(|reason| Failure::new(Exit::Config, reason)));
    }
}
