// SPDX-License-Identifier: Apache-2.0
//! Copies the headers that belong to exactly this build of the C API to where the C++ build looks for them.

use std::path::Path;
use std::{env, fs, io};

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=HOST_RUNNER_ENGINE_INCLUDE");
    println!("cargo:rerun-if-env-changed=DEP_WASMTIME_C_API_INCLUDE");
    let Ok(to) = env::var("HOST_RUNNER_ENGINE_INCLUDE") else {
        return;
    };
    let from = env::var("DEP_WASMTIME_C_API_INCLUDE").expect("the C API's build script names its headers");
    if let Err(error) = copy_tree(Path::new(&from), Path::new(&to)) {
        panic!("cannot copy the engine's headers from {from} to {to}: {error}");
    }
}
