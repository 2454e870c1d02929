//! Arguments -> one subcommand -> exit code.
#![expect(unsafe_code, reason = "three things that concern the whole process")]

fn main() {
    // Official ONNX Runtime builds send telemetry, and the switch that `ort` offers comes too late for the first event.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    // Each of the decoders' threads would have a heap of its own otherwise, with pictures that nobody needs any more.
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: a setting of glibc's allocator, by its documented number.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
    let code = groundd::cli::main();
    // Threads may still be loading a model or hang in a driver. A normal exit would run library destructors under them, and could
    // crash.
    // SAFETY: nothing comes after this.
    unsafe { libc::_exit(code.into()) }
}
