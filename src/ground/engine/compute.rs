//! On what, and with how much, files are run: what the runtime is asked for when it opens one.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    thread,
};

use ort::{
    environment::Environment,
    ep,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{
        Session,
        builder::{AutoDevicePolicy, BuilderResult, SessionBuilder},
    },
};
use sha2::{Digest, Sha256};

use crate::ground::{Provider, manifest::digest_of};

/// How often a file is opened at most, a thread each.
const LANES: usize = 8;
/// Bytes of weights that these hold together at most: each has its own.
const WEIGHTS: u64 = 256 << 20;

/// On what, and with how much, files are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// What computes.
    pub provider: Provider,
    /// Which GPU.
    pub device: u32,
    /// CPU threads for one run; 0 is one a core.
    pub threads: usize,
}

impl Compute {
    /// Threads for one pass.
    fn threads(self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// How often `file` should be opened besides, a thread each, for several pictures at once; 0 where a device has its own
    /// ways, or where that would take much memory.
    pub fn lanes(self, file: &Path) -> usize {
        self.copies([file])
    }

    /// The same for several files together.
    pub fn copies<'a>(self, files: impl IntoIterator<Item = &'a Path>) -> usize {
        let Some(bytes) = files.into_iter().map(weights).sum::<Option<u64>>() else { return 0 };
        let fit = usize::try_from(WEIGHTS / bytes.max(1)).unwrap_or(usize::MAX);
        let lanes = self.threads().min(LANES).min(fit);
        if self.provider == Provider::Cpu && lanes > 1 { lanes } else { 0 }
    }

    /// The part of it that one of so many gets that run at once. Where threads remain, the first have one more.
    #[must_use]
    pub fn part(self, index: usize, lanes: usize) -> Self {
        let (threads, lanes) = (self.threads(), lanes.max(1));
        Self { threads: (threads / lanes + usize::from(index < threads % lanes)).max(1), ..self }
    }

    /// What a session is opened with. With `patterns` the runtime remembers, for every shape of the inputs it has seen, where
    /// everything lay in memory, and forgets none of it: right for a few shapes, a leak where every run has another.
    pub(super) fn options(self, environment: &Environment, patterns: bool) -> Result<SessionBuilder, String> {
        let set = |result: BuilderResult| result.map_err(|e| e.to_string());
        let builder = Session::builder(environment).map_err(|e| e.to_string())?;
        let builder = set(builder.with_intra_threads(self.threads()))?;
        // Idle threads sleep: a service that waits for frames must not burn the machine it shares.
        let builder = set(builder.with_intra_op_spinning(false))?;
        let builder = set(builder.with_memory_pattern(patterns))?;
        // Unasked, `ort` lets the runtime pick the device that saves most power, which need not be the one configured;
        // and ONNX Runtime 1.22, which knows no devices on Linux, aborts the process then. Asked for the CPU it only fails.
        let builder = set(builder.with_auto_device(AutoDevicePolicy::PreferCPU))?;
        set(builder.with_deterministic_compute(true))
    }

    /// The same on the device that computes; `steady` is the file that will be opened, if its inputs have a few shapes.
    pub(super) fn provided(self, builder: SessionBuilder, steady: Option<&Path>) -> Result<SessionBuilder, String> {
        builder.with_execution_providers(self.providers(steady)).map_err(|e| e.to_string())
    }

    fn providers(self, steady: Option<&Path>) -> Vec<ep::ExecutionProviderDispatch> {
        let device = i32::try_from(self.device).unwrap_or(i32::MAX);
        let cuda = || ep::CUDA::default().with_device_id(device).build().error_on_failure();
        match self.provider {
            Provider::Cpu => vec![],
            Provider::Cuda => vec![cuda()],
            // TensorRT hands what it cannot do to CUDA. It builds a graph anew, in the midst of a run, for a shape that it has not
            // seen: of a decoder, whose past grows with each token, with each token.
            Provider::Tensorrt => steady.map(|file| tensorrt(device, file)).into_iter().chain([cuda()]).collect(),
        }
    }

    /// Where what stays on the device lies.
    pub(super) fn memory(self) -> ort::Result<MemoryInfo<'static>> {
        let device = i32::try_from(self.device).unwrap_or(i32::MAX);
        match self.provider {
            Provider::Cpu => Ok(MemoryInfo::default()),
            Provider::Cuda | Provider::Tensorrt => {
                MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)
            }
        }
    }
}

fn tensorrt(device: i32, file: &Path) -> ep::ExecutionProviderDispatch {
    let mut own = ep::TensorRT::default().with_device_id(device);
    // The folder that systemd keeps for a service, as in `StateDirectory=`.
    let state = env::var_os("STATE_DIRECTORY");
    if let Some(folder) = builds(state.as_deref(), file) {
        let folder = folder.display().to_string();
        own = own.with_engine_cache(true).with_engine_cache_path(&folder);
        own = own.with_timing_cache(true).with_timing_cache_path(&folder);
    }
    own.build().error_on_failure()
}

/// Where TensorRT keeps what it builds of `file`, which takes it minutes; `None` where no folder is kept for this process: what is
/// loaded from there is run, so that nobody else may write to it. TensorRT knows a graph again by the names in it, whatever its
/// weights; therefore each content has a folder of its own.
fn builds(state: Option<&OsStr>, file: &Path) -> Option<PathBuf> {
    let state = env::split_paths(state?).next().filter(|folder| !folder.as_os_str().is_empty())?;
    let mut hash = Sha256::new();
    for path in [file.to_owned()].into_iter().chain(beside(file)) {
        hash.update(digest_of(&path, &mut |_| ()).ok()?);
    }
    let folder = state.join("tensorrt").join(data_encoding::HEXLOWER.encode(&hash.finalize()[..8]));
    fs::create_dir_all(&folder).ok()?;
    Some(folder)
}

/// Bytes of a graph, and of the weights beside it; `None` if it is not there.
fn weights(file: &Path) -> Option<u64> {
    let own = fs::metadata(file).ok()?.len();
    let more = beside(file).iter().filter_map(|data| fs::metadata(data).ok()).map(|data| data.len()).sum::<u64>();
    Some(own + more)
}

/// The files beside a graph that hold weights of it: `x.onnx_data`, `x.onnx_data_1`, `x.onnx.data`.
fn beside(file: &Path) -> Vec<PathBuf> {
    let Some(graph) = file.file_name() else { return Vec::new() };
    let is_data = |name: &OsStr| {
        let rest = name.as_encoded_bytes().strip_prefix(graph.as_encoded_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"_data") || rest.starts_with(b".data"))
    };
    let entries = file.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter(|entry| is_data(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(threads: usize) -> Compute {
        Compute { provider: Provider::Cpu, device: 0, threads }
    }

    /// A file of so many megabytes, of which the disk holds none.
    fn sparse(path: &Path, megabytes: u64) {
        fs::File::create(path).unwrap().set_len(megabytes << 20).unwrap();
    }

    #[test]
    fn a_file_is_opened_as_often_as_threads_and_memory_allow() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("detector.onnx");
        assert_eq!(cpu(16).lanes(&file), 0, "it is not there");
        for (megabytes, threads, expected) in
            [(0, 4, 4), (1, 16, 8), (1, 3, 3), (1, 1, 0), (64, 16, 4), (100, 16, 2), (129, 16, 0), (300, 16, 0)]
        {
            sparse(&file, megabytes);
            assert_eq!(cpu(threads).lanes(&file), expected, "{megabytes} MiB, {threads} threads");
        }
        sparse(&file, 1);
        assert_eq!(Compute { provider: Provider::Cuda, ..cpu(16) }.lanes(&file), 0);
        assert_eq!(cpu(16).copies([file.as_path(); 40]), 6, "they share the room");
        // Weights beside it count, whatever else lies there.
        for (name, expected) in
            [("detector.onnx.txt", 8), ("other.onnx_data", 8), ("detector.onnx_data", 4), ("detector.onnx.data", 2)]
        {
            sparse(&dir.path().join(name), 60);
            assert_eq!(cpu(16).lanes(&file), expected, "{name}");
        }
    }

    #[test]
    fn what_is_built_of_a_file_is_kept_apart_from_that_of_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let (file, state) = (dir.path().join("a.onnx"), Some(dir.path().as_os_str()));
        assert_eq!(builds(state, &file), None, "it is not there");
        fs::write(&file, "one").unwrap();
        let first = builds(state, &file).unwrap();
        assert!(first.is_dir() && first.starts_with(dir.path().join("tensorrt")));
        assert_eq!(builds(state, &file).as_ref(), Some(&first));
        fs::write(dir.path().join("a.onnx_data"), "two").unwrap();
        assert_ne!(builds(state, &file).as_ref(), Some(&first));
        assert_eq!((builds(None, &file), builds(Some(OsStr::new("")), &file)), (None, None));
    }
}
