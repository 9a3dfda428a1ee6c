// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::tests {

/// A layout with one artifact whose only layer is `module`, as tools of registries write it.
inline void write_oci_layout(const std::string& folder, const std::string& module,
                             const std::string& media_type = "application/wasm") {
    const auto must = [](const Result<void>& done) {
        if (!done)
            throw std::runtime_error(done.error().describe());
    };
    const auto blobs = join_path(folder, "blobs/sha256");
    must(make_directories(blobs));
    const auto add_blob = [&](const std::string& bytes) {
        const auto digest = crypto::sha256_hex(bytes);
        must(write_file_atomic(join_path(blobs, digest), bytes));
        return fmt::format(R"("digest":"sha256:{}","size":{})", digest, bytes.size());
    };
    const auto config = add_blob("{}");
    const auto layer = add_blob(module);
    const auto manifest = add_blob(fmt::format(
        R"({{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",)"
        R"("config":{{"mediaType":"application/vnd.wasm.config.v0+json",{}}},)"
        R"("layers":[{{"mediaType":"{}",{}}}]}})",
        config, media_type, layer));
    must(write_file_atomic(
        join_path(folder, "index.json"),
        fmt::format(R"({{"schemaVersion":2,"manifests":[)"
                    R"({{"mediaType":"application/vnd.oci.image.manifest.v1+json",{}}}]}})",
                    manifest)));
    must(write_file_atomic(join_path(folder, "oci-layout"), R"({"imageLayoutVersion":"1.0.0"})"));
}

} // namespace host_runner::tests
