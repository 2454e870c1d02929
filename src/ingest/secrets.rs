//! Where a camera is and what opens it: address and credentials kept apart, so that the address can be shown.

use std::{fs, path::PathBuf};

use super::{CameraConfig, IngestError};
use crate::login::{self, Login};

/// An address without credentials, and the credentials. Not `Debug`: it must not reach a log.
#[derive(Clone)]
pub(super) struct Access {
    /// The URI without user name and password, its query kept.
    pub(super) location: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Access {
    /// Reads credentials from the configuration, else from the URI. The password file is read for every connection,
    /// so a changed password needs no restart.
    pub(super) fn of(config: &CameraConfig) -> Result<Self, IngestError> {
        let Login { address: location, mut user, mut password } = Login::of(&config.uri);
        if config.username.is_some() {
            user.clone_from(&config.username);
        }
        if let Some(path) = &config.password_file {
            if user.is_none() {
                let problem = "is missing: `password_file` is set, so a user name is needed too";
                return Err(IngestError::Setting { camera: config.id.clone(), key: "username", problem });
            }
            password = Some(read_password(config, path)?);
        }
        Ok(Self { location, user, password })
    }
}

fn read_password(config: &CameraConfig, path: &PathBuf) -> Result<String, IngestError> {
    let unusable = |reason| IngestError::File {
        camera: config.id.clone(),
        what: "password_file: cannot read",
        path: path.clone(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|e| unusable(e.to_string()))?;
    login::password(&text).map(str::to_owned).ok_or_else(|| unusable("the first line is empty".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(uri: &str) -> CameraConfig {
        toml::from_str(&format!("id = \"gate\"\nuri = {uri:?}")).unwrap()
    }

    #[test]
    fn credentials_leave_the_address_and_are_decoded() {
        let access = Access::of(&config("rtsp://us%40er:p%3Aw@host:8554/a%20b?x=1&y=2")).unwrap();
        assert_eq!(access.location, "rtsp://host:8554/a%20b?x=1&y=2");
        assert_eq!((access.user.as_deref(), access.password.as_deref()), (Some("us@er"), Some("p:w")));
    }

    #[test]
    fn the_configuration_goes_before_the_uri() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "s3cret\nsecond line\n").unwrap();
        let mut camera = config("rtsp://a:b@host/");
        camera.username = Some("root".to_owned());
        camera.password_file = Some(file);
        let access = Access::of(&camera).unwrap();
        assert_eq!((access.user.as_deref(), access.password.as_deref()), (Some("root"), Some("s3cret")));
    }

    #[test]
    fn an_unreadable_password_file_is_named() {
        let mut camera = config("rtsp://root@host/");
        camera.password_file = Some("/nowhere/password".into());
        let error = Access::of(&camera).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("`gate`: password_file: cannot read `/nowhere/password`: "), "{error}");
    }

    #[test]
    fn a_password_needs_a_user() {
        let mut camera = config("rtsp://host/");
        camera.password_file = Some("/nowhere/password".into());
        let error = Access::of(&camera).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("`username`") && error.contains("`password_file`"), "{error}");
    }
}
