// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/delivery.hpp"

#include <fmt/format.h>

#include "host_runner/protocol/app_compose.hpp"

#include "json_fields.hpp"

namespace host_runner::instance {

namespace {

using nlohmann::ordered_json;

/// When the file changed. Source: dstack's vmm (teepod before 0.5), release tags v0.3.6, v0.4.0,
/// v0.4.2, v0.5.0, v0.5.6 and the dstack-types of 0.6.
constexpr image::Version since_sys_config{0, 4, 0};
constexpr image::Version without_rootfs_hash{0, 4, 2};
constexpr image::Version since_vm_config{0, 5, 0};
constexpr image::Version since_share_disk{0, 5, 6};
constexpr image::Version since_collateral_urls{0, 6, 0};

/// What the guest puts beside its quotes, so that a verifier can compute the measurements.
std::string encode_vm_config(const image::Image& image, const SysConfigInput& input) {
    ordered_json object{{"spec_version", 1},
                        {"os_image_hash", image.os_image_hash},
                        {"cpu_count", input.cpus},
                        {"memory_size", input.memory_bytes}};
    if (!input.qemu_version.empty())
        object["qemu_version"] = input.qemu_version;
    object["num_gpus"] = input.num_gpus;
    object["num_nvswitches"] = input.num_nvswitches;
    object["image"] = image.name;
    if (image.guest == image::Guest::host_runner || image.version >= since_share_disk)
        object["host_share_mode"] = "vhd"; // dstack's word for a disk with a FAT file system
    return to_line(object);
}

} // namespace

Result<NamedFile> make_sys_config(const image::Image& image, const SysConfigInput& input) {
    // Our own guest reads the newest form.
    const bool is_ours = image.guest == image::Guest::host_runner;
    const auto has = [&](image::Version version) {
        return is_ours || image.version >= version;
    };
    const std::string first_kms = input.kms_urls.empty() ? "" : input.kms_urls.front();
    if (!is_ours && input.host_api_url.empty())
        return fail(ErrorCode::internal, "A dstack image needs the host API's address");

    ordered_json object = ordered_json::object();
    if (!has(without_rootfs_hash))
        object["rootfs_hash"] = image.rootfs_hash;
    if (!has(since_sys_config)) {
        object["kms_url"] = first_kms;
        object["tproxy_url"] = "";
    } else if (!has(without_rootfs_hash)) {
        object["kms_urls"] = input.kms_urls;
        object["tproxy_urls"] = ordered_json::array();
    } else {
        object["kms_urls"] = input.kms_urls;
        object["gateway_urls"] = ordered_json::array();
    }
    // Empty: the guest's built-in PCCS.
    object["pccs_url"] = "";
    object["docker_registry"] = "";
    object["host_api_url"] = input.host_api_url;
    if (has(since_vm_config))
        object["vm_config"] = encode_vm_config(image, input);
    if (has(since_collateral_urls))
        object["collateral_urls"] = ordered_json::object();

    NamedFile file{has(since_sys_config) ? ".sys-config.json" : "config.json", to_line(object)};
    if (file.bytes.size() > protocol::max_sys_config_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has {} bytes, more than {}", file.name, file.bytes.size(),
                                protocol::max_sys_config_bytes),
                    "give fewer or shorter addresses of key management services");
    return file;
}

} // namespace host_runner::instance
