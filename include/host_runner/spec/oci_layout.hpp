// SPDX-License-Identifier: Apache-2.0
#pragma once

/// WebAssembly modules in OCI image layout folders, as registries' tools write them
/// (`oras copy --to-oci-layout`, `skopeo copy ... oci:FOLDER`).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::spec {

/// What index and manifest say of a blob.
struct OciDescriptor {
    std::string media_type;
    std::string sha256; ///< Hex.
    std::uint64_t size = 0;
};

/// An index or a manifest: of the one `manifests`, of the other `layers`.
/// @errors corrupt_data: no JSON object with such a list, over 1 MiB, a digest that is not SHA-256,
///         more than 1024 entries
/// Source: OCI image specification 1.1, image-index.md, manifest.md, descriptor.md
[[nodiscard]] Result<std::vector<OciDescriptor>> parse_oci_descriptors(std::string_view json);

/// The blob of a module, and what its manifest says of it.
struct OciModule {
    std::string path;
    OciDescriptor descriptor;
};

/// The module of a layout: of its only manifest the only layer that holds WebAssembly, an artifact
/// of the CNCF's form. Index and manifest are checked by digest and size; the module's own digest
/// is for the caller, who reads it.
/// @errors corrupt_data: a blob is not what its digest says; unsupported: no or several manifests
///         or modules, a module inside an archive (a container image); not_found, io_error
/// Source: OCI image-layout.md; CNCF TAG Runtime, "Wasm OCI artifact layout"
[[nodiscard]] Result<OciModule> find_oci_module(const std::string& folder);

} // namespace host_runner::spec
