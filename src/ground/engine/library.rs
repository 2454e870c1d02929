//! Finds the ONNX Runtime shared library. Looks at files only; `local` loads what was found.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::EngineError;

const STEM: &str = "libonnxruntime.so";
const BUNDLED: &str = ".runtime/onnxruntime/lib";

/// Where ONNX Runtime is: the configured file alone if there is one, else the one `ORT_DYLIB_PATH` names, else the
/// first found in `.runtime/onnxruntime/lib` in or above the executable's folder, else the first in the system's library
/// folders. Not in the working directory: that may be anybody's, and what is found there would be run. A folder stands for the newest `libonnxruntime.so*` in it.
pub fn find(configured: Option<&Path>) -> Result<PathBuf, EngineError> {
    let named = env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from);
    first(match configured.map(Path::to_owned).or(named) {
        // A place that somebody named is used or reported, never passed over in silence.
        Some(place) => vec![place],
        None => [bundled(), system()].concat(),
    })
}

fn first(places: Vec<PathBuf>) -> Result<PathBuf, EngineError> {
    match places.iter().find_map(|place| if place.is_file() { Some(place.clone()) } else { newest(place) }) {
        // The loader would read a bare file name as one to look up elsewhere.
        Some(found) => Ok(fs::canonicalize(&found).unwrap_or(found)),
        None => Err(EngineError::NoLibrary { looked: places }),
    }
}

fn bundled() -> Vec<PathBuf> {
    let exe = env::current_exe().unwrap_or_default();
    exe.ancestors().skip(1).map(|folder| folder.join(BUNDLED)).collect()
}

fn system() -> Vec<PathBuf> {
    let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
    let usual =
        ["/usr/lib/groundd", "/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/onnxruntime/lib"].map(PathBuf::from);
    let searched = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let searched = env::split_paths(&searched).filter(|p| !p.as_os_str().is_empty());
    searched.chain(usual).chain([Path::new("/usr/lib").join(multiarch)]).collect()
}

/// The newest `libonnxruntime.so*` in `folder`, by the version in its name; one without a version is the system's
/// own choice and comes first.
fn newest(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.filter_map(|path| Some((version(path.file_name()?.to_str()?)?, path))).max().map(|(_, path)| path)
}

fn version(name: &str) -> Option<Vec<u32>> {
    match name.strip_prefix(STEM)? {
        "" => Some(vec![u32::MAX]),
        rest => rest.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        dir
    }

    #[test]
    fn the_newest_library_of_a_folder_is_taken_by_number_not_by_letter() {
        let dir =
            folder(&["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"]);
        assert!(newest(dir.path()).unwrap().ends_with("libonnxruntime.so.1.32.0"));
        fs::write(dir.path().join("libonnxruntime.so"), "").unwrap();
        assert!(newest(dir.path()).unwrap().ends_with("libonnxruntime.so"));
        assert_eq!(newest(folder(&["libonnxruntime_providers_cuda.so", "libonnxruntime.so.bak"]).path()), None);
    }

    #[test]
    fn a_named_place_is_not_replaced_by_another() {
        let error = find(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
        assert!(matches!(&error, EngineError::NoLibrary { looked } if looked.len() == 1), "{error}");
        let text = error.to_string();
        assert!(text.contains("/nowhere/libonnxruntime.so") && text.contains("make setup"), "{text}");
    }

    #[test]
    fn every_place_is_named_when_nothing_is_found() {
        let error = first(vec!["/a".into(), "/b".into(), "/c".into()]).unwrap_err().to_string();
        assert!(error.contains("`/a`, `/b` and `/c`"), "{error}");
    }

    #[test]
    fn the_folders_above_the_executable_are_looked_at() {
        let exe = env::current_exe().unwrap();
        let places = bundled();
        assert_eq!(places.len(), exe.components().count() - 1);
        assert!(exe.ancestors().skip(1).all(|folder| places.contains(&folder.join(BUNDLED))));
        assert!(system().contains(&"/usr/lib".into()));
    }
}
