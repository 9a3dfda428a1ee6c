// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/oci_layout.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::spec {

namespace {

constexpr std::size_t max_document_bytes = mib;
constexpr std::size_t max_descriptors = 1024;
constexpr std::string_view digest_prefix = "sha256:";
constexpr std::size_t digest_digits = 64;

/// Today's media type, and those of the tools that came before it.
constexpr std::array<std::string_view, 3> module_types{
    "application/wasm", "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm"};

tl::unexpected<Error> corrupt(std::string_view what) {
    return fail(ErrorCode::corrupt_data, fmt::format("The OCI layout is damaged: {}", what),
                "copy it again from its registry");
}

Result<OciDescriptor> read_descriptor(const nlohmann::json& json) {
    OciDescriptor descriptor;
    json.at("mediaType").get_to(descriptor.media_type);
    json.at("size").get_to(descriptor.size);
    const auto digest = json.at("digest").get<std::string>();
    const auto hex = std::string_view(digest).substr(std::min(digest_prefix.size(), digest.size()));
    const auto is_digit = [](char digit) {
        return (digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f');
    };
    // It becomes part of a path.
    if (!digest.starts_with(digest_prefix) || hex.size() != digest_digits ||
        !std::all_of(hex.begin(), hex.end(), is_digit))
        return corrupt("a digest is not SHA-256");
    descriptor.sha256 = hex;
    return descriptor;
}

std::string blob_path(const std::string& folder, const OciDescriptor& descriptor) {
    return join_path(folder, "blobs/sha256/" + descriptor.sha256);
}

Result<std::string> read_blob(const std::string& folder, const OciDescriptor& descriptor) {
    HR_TRY(auto bytes, read_file(blob_path(folder, descriptor), max_document_bytes));
    if (bytes.size() != descriptor.size || crypto::sha256_hex(bytes) != descriptor.sha256)
        return corrupt(fmt::format("blob {} has other bytes", descriptor.sha256));
    return bytes;
}

} // namespace

Result<std::vector<OciDescriptor>> parse_oci_descriptors(std::string_view text) {
    if (text.size() > max_document_bytes)
        return corrupt("an index or manifest is over 1 MiB");
    try {
        const auto json = nlohmann::json::parse(text);
        const auto* name = json.contains("manifests") ? "manifests" : "layers";
        const auto& list = json.at(name);
        if (!list.is_array() || list.size() > max_descriptors)
            return corrupt(fmt::format("its {} are no list of at most {}", name, max_descriptors));
        std::vector<OciDescriptor> descriptors;
        for (const auto& item : list) {
            HR_TRY(auto descriptor, read_descriptor(item));
            descriptors.push_back(std::move(descriptor));
        }
        return descriptors;
    } catch (const nlohmann::json::exception& problem) {
        return corrupt(problem.what());
    }
}

Result<OciModule> find_oci_module(const std::string& folder) {
    HR_TRY(const auto index, read_file(join_path(folder, "index.json"), max_document_bytes));
    HR_TRY(const auto manifests, parse_oci_descriptors(index));
    if (manifests.size() != 1)
        return fail(ErrorCode::unsupported,
                    fmt::format("The OCI layout {} holds {} images", folder, manifests.size()),
                    "copy the one that shall run into a layout of its own");
    HR_TRY(const auto manifest, read_blob(folder, manifests.front()));
    HR_TRY(const auto layers, parse_oci_descriptors(manifest));
    const auto is_module = [](const OciDescriptor& layer) {
        return std::find(module_types.begin(), module_types.end(), layer.media_type) !=
               module_types.end();
    };
    const auto count = std::count_if(layers.begin(), layers.end(), is_module);
    if (count != 1)
        return fail(ErrorCode::unsupported,
                    fmt::format("The OCI image in {} has {} layers that are WebAssembly modules",
                                folder, count),
                    "this guest takes artifacts with one layer of the type application/wasm, not "
                    "container images with a module inside");
    const auto& module = *std::find_if(layers.begin(), layers.end(), is_module);
    return OciModule{blob_path(folder, module), module};
}

} // namespace host_runner::spec
