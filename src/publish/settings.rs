//! The `[mqtt]` table, checked: first what it says by itself, then the files it names. Everything that can be known to
//! fail without a broker fails here.

use std::{fs, path::Path, time::Duration};

use native_tls::{Certificate, Identity, TlsConnector};
use url::{Host, Url};

use super::{MqttConfig, PublishError, topic};
use crate::login;

/// A checked [`MqttConfig`].
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<TlsConnector>,
    pub(super) login: Option<(String, String)>,
    pub(super) client_id: String,
    pub(super) keep_alive: Duration,
    pub(super) expiry: Duration,
}

impl MqttConfig {
    /// Refuses what cannot be meant; reads no file. No error repeats what may have a password in it.
    pub fn check(&self) -> Result<(), PublishError> {
        let (_, _, encrypted) = address(&self.url)?;
        self.topics()?;
        if let Some(prefix) = &self.discovery_prefix {
            topic::check(prefix).map_err(|source| PublishError::Topic { key: "discovery_prefix", source })?;
        }
        self.check_numbers()?;
        self.check_files(encrypted)?;
        if self.username.is_none() && self.password_file.is_some() {
            return Err(wrong("username", "password_file is set, so a user name is needed too"));
        }
        let unusable = |id: &str| id.is_empty() || id.len() > 256 || id.chars().any(char::is_control);
        if self.client_id.as_deref().is_some_and(unusable) {
            return Err(wrong("client_id", "give 1 to 256 printable characters, unique on the broker"));
        }
        self.control.check()
    }

    fn check_numbers(&self) -> Result<(), PublishError> {
        if self.keep_alive_seconds < 5 {
            return Err(wrong("keep_alive_seconds", format!("{} is too short; at least 5", self.keep_alive_seconds)));
        }
        if self.detections_expiry_seconds == 0 {
            return Err(wrong("detections_expiry_seconds", "0 would expire messages before they arrive; at least 1"));
        }
        if self.spool_events == 0 {
            return Err(wrong("spool_events", "0 would drop every event; at least 1"));
        }
        if !(0.0..=86_400.0).contains(&self.snapshot_seconds) {
            return Err(wrong("snapshot_seconds", "use seconds from 0, which is off, to 86400"));
        }
        Ok(())
    }

    /// Whether the files for TLS go together, and with the address.
    fn check_files(&self, encrypted: bool) -> Result<(), PublishError> {
        let given = [("ca_file", &self.ca_file), ("cert_file", &self.cert_file), ("key_file", &self.key_file)];
        if !encrypted && let Some((key, _)) = given.into_iter().find(|(_, file)| file.is_some()) {
            return Err(wrong(key, "it is set, but url is not encrypted; use mqtts://"));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => Err(wrong("key_file", "cert_file is set, so its key is needed too")),
            (None, Some(_)) => Err(wrong("cert_file", "key_file is set, so its certificate is needed too")),
            _ => Ok(()),
        }
    }
}

impl Settings {
    pub(super) fn new(config: &MqttConfig) -> Result<Self, PublishError> {
        config.check()?;
        let (host, port, encrypted) = address(&config.url)?;
        Ok(Self {
            tls: if encrypted { Some(encryption(config)?) } else { None },
            host,
            port,
            login: login(config)?,
            client_id: config.client_id.clone().unwrap_or_else(default_client_id),
            keep_alive: Duration::from_secs(config.keep_alive_seconds.into()),
            expiry: Duration::from_secs(config.detections_expiry_seconds.into()),
        })
    }

    /// Host and port, for people.
    pub(super) fn broker(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn wrong(key: &'static str, problem: impl Into<String>) -> PublishError {
    PublishError::Config { key, problem: problem.into() }
}

fn address(text: &str) -> Result<(String, u16, bool), PublishError> {
    const SHAPE: &str = "write mqtt://host:1883, or mqtts://host:8883 for TLS";
    // The text itself may contain a password: it is not repeated.
    let url = Url::parse(text).map_err(|e| wrong("url", format!("this is not a URL ({e}); {SHAPE}")))?;
    let encrypted = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(wrong("url", format!("`{other}://` is not supported; {SHAPE}"))),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("url", "a URL ends up in logs; put the name in `username`, the password in `password_file`"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("url", format!("only host and port belong here, topics go in `base_topic`; {SHAPE}")));
    }
    let host = match url.host() {
        Some(Host::Ipv6(_)) if encrypted => {
            return Err(wrong("url", "an IPv6 address cannot be checked against a certificate; use the host's name"));
        }
        Some(host) if !host.to_string().is_empty() => host.to_string(),
        _ => return Err(wrong("url", format!("the host is missing; {SHAPE}"))),
    };
    let port = url.port().unwrap_or(if encrypted { 8883 } else { 1883 });
    Ok((host, port, encrypted))
}

/// The client id of the daemon on this machine if nobody chooses one.
pub fn default_client_id() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("groundd-{}", host.trim())
}

fn login(config: &MqttConfig) -> Result<Option<(String, String)>, PublishError> {
    let Some(name) = &config.username else { return Ok(None) };
    let password = match &config.password_file {
        None => config.password.as_ref().map_or_else(String::new, |password| password.0.clone()),
        Some(path) => password(path)?,
    };
    Ok(Some((name.clone(), password)))
}

/// The first line of the file at `path`.
fn password(path: &Path) -> Result<String, PublishError> {
    let text = String::from_utf8(read("password_file", path)?)
        .map_err(|_| wrong("password_file", format!("`{}` is not UTF-8 text", path.display())))?;
    let empty = || wrong("password_file", format!("the first line of `{}` is empty", path.display()));
    login::password(&text).map(str::to_owned).ok_or_else(empty)
}

fn encryption(config: &MqttConfig) -> Result<TlsConnector, PublishError> {
    let mut builder = TlsConnector::builder();
    if let Some(path) = &config.ca_file {
        let unreadable = |why: String| wrong("ca_file", format!("`{}` has no PEM certificate{why}", path.display()));
        let certificates = Certificate::stack_from_pem(&read("ca_file", path)?)
            .map_err(|e| unreadable(format!(" that can be read: {e}")))?;
        if certificates.is_empty() {
            return Err(unreadable(String::new()));
        }
        // This one must have signed it: the system's store does not count beside it.
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        let (pem, key_pem) = (read("cert_file", cert)?, read("key_file", key)?);
        let identity = Identity::from_pkcs8(&pem, &key_pem).map_err(|e| {
            let (cert, key) = (cert.display(), key.display());
            wrong("cert_file", format!("`{cert}` and key `{key}` are no PEM pair (key in PKCS#8): {e}"))
        })?;
        builder.identity(identity);
    }
    builder.build().map_err(|e| wrong("ca_file", format!("TLS cannot be set up: {e}")))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, PublishError> {
    fs::read(path).map_err(|e| wrong(key, format!("cannot read `{}`: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut MqttConfig);

    fn problem(change: impl FnOnce(&mut MqttConfig)) -> String {
        let mut config = MqttConfig::default();
        change(&mut config);
        Settings::new(&config).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn defaults_are_sound() {
        let settings = Settings::new(&MqttConfig::default()).unwrap();
        assert_eq!(settings.broker(), "localhost:1883");
        assert!(settings.client_id.len() > "groundd-".len());
        let mut config = MqttConfig { url: "mqtts://broker.example".into(), ..MqttConfig::default() };
        let settings = Settings::new(&config).unwrap();
        assert_eq!((settings.broker().as_str(), settings.tls.is_some()), ("broker.example:8883", true));
        config.url = "mqtt://[::1]:99".into();
        assert_eq!(Settings::new(&config).unwrap().broker(), "[::1]:99");
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let cases: [(&str, Change<'_>); 20] = [
            ("mqtt.snapshot_seconds", &|c| c.snapshot_seconds = f32::INFINITY),
            ("mqtt.snapshot_seconds", &|c| c.snapshot_seconds = -1.0),
            ("mqtt.url", &|c| c.url = "localhost".into()),
            ("mqtt.url", &|c| c.url = "http://localhost".into()),
            ("mqtt.url", &|c| c.url = "mqtt://:1883".into()),
            ("mqtt.url", &|c| c.url = "mqtt://host/topic".into()),
            ("mqtt.url", &|c| c.url = "mqtts://[::1]".into()),
            ("mqtt.base_topic", &|c| c.base_topic = "a/#".into()),
            ("mqtt.discovery_prefix", &|c| c.discovery_prefix = Some(String::new())),
            ("mqtt.keep_alive_seconds", &|c| c.keep_alive_seconds = 4),
            ("mqtt.detections_expiry_seconds", &|c| c.detections_expiry_seconds = 0),
            ("mqtt.spool_events", &|c| c.spool_events = 0),
            ("mqtt.username", &|c| c.password_file = Some("/dev/null".into())),
            ("mqtt.password_file", &|c| (c.username, c.password_file) = (Some("u".into()), Some("/dev/null".into()))),
            ("mqtt.password_file", &|c| (c.username, c.password_file) = (Some("u".into()), Some("/no/such".into()))),
            ("mqtt.ca_file", &|c| c.ca_file = Some("/dev/null".into())),
            ("mqtt.ca_file", &|c| (c.url, c.ca_file) = ("mqtts://h".into(), Some("/dev/null".into()))),
            ("mqtt.key_file", &|c| (c.url, c.cert_file) = ("mqtts://h".into(), Some("/dev/null".into()))),
            ("mqtt.cert_file", &|c| (c.url, c.key_file) = ("mqtts://h".into(), Some("/dev/null".into()))),
            ("mqtt.client_id", &|c| c.client_id = Some("x".repeat(257))),
        ];
        for (key, change) in cases {
            let problem = problem(change);
            assert!(problem.starts_with(key), "wanted {key}, got {problem:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_files_is_left_to_whoever_reads_them() {
        let gone = || Some(std::path::PathBuf::from("/no/such"));
        let login = MqttConfig { username: Some("me".into()), password_file: gone(), ..MqttConfig::default() };
        let url = "mqtts://host".to_owned();
        let tls = MqttConfig { url, ca_file: gone(), cert_file: gone(), key_file: gone(), ..MqttConfig::default() };
        for config in [login, tls] {
            config.check().unwrap();
            assert!(Settings::new(&config).is_err());
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let address = "mqtt://me:secret@host";
        let url = problem(|c| c.url = address.into());
        assert!(url.contains("password_file") && !url.contains("secret"), "{url}");
        let base = problem(|c| c.base_topic = address.into());
        let prefix = problem(|c| c.discovery_prefix = Some(address.into()));
        for topic in [base, prefix] {
            assert!(topic.contains("empty level") && !topic.contains("secret"), "{topic}");
        }
    }
}
