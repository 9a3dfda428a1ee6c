// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A small image directory that passes every check, to be damaged by a test.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "fakes/temporary_directory.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::tests {

class ImageDirectory {
public:
    /// Fields of metadata.json as JSON values; those of a dstack 0.5.6 image to start with.
    std::map<std::string, std::string> metadata{
        {"bios", R"("ovmf.fd")"},
        {"kernel", R"("bzImage")"},
        {"initrd", R"("initramfs.cpio.gz")"},
        {"rootfs", R"("rootfs.img.verity")"},
        {"cmdline", "\"console=ttyS0 dstack.rootfs_hash=" + std::string(64, 'a') +
                        " dstack.rootfs_size=8192\""},
        {"shared_ro", "true"},
        {"version", R"("0.5.6")"},
    };
    std::vector<std::string> summed{"ovmf.fd", "bzImage", "initramfs.cpio.gz", "metadata.json"};

    explicit ImageDirectory(const std::string& name = "dstack-0.5.6") : path_(folder_ / name) {
        std::filesystem::create_directory(path_);
        write("ovmf.fd", "firmware");
        write("bzImage", "kernel");
        write("initramfs.cpio.gz", "initramfs");
        write("rootfs.img.verity", std::string(12288, 'r'));
    }

    [[nodiscard]] const std::string& path() const noexcept {
        return path_;
    }
    [[nodiscard]] std::string operator/(const std::string& name) const {
        return path_ + "/" + name;
    }
    void write(const std::string& name, const std::string& bytes) const {
        std::ofstream(*this / name, std::ios::binary) << bytes;
    }
    [[nodiscard]] std::string read(const std::string& name) const {
        std::ifstream file(*this / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void remove(const std::string& name) const {
        std::filesystem::remove(*this / name);
    }
    /// Ours, without root file system and firmware: what boots is the kernel alone.
    void make_own() {
        metadata["guest"] = R"("host-runner")";
        metadata["cmdline"] = R"("tiny")";
        metadata.erase("rootfs");
        metadata.erase("bios");
        summed = {"bzImage", "initramfs.cpio.gz", "metadata.json"};
    }
    /// 0.3.x as dstack released them: an iso, a hash in metadata.json, no digest.txt.
    void make_generation_a() {
        remove("rootfs.img.verity");
        write("rootfs.iso", "iso");
        metadata["rootfs"] = R"("rootfs.iso")";
        metadata["rootfs_hash"] = "\"" + std::string(64, 'b') + "\"";
        metadata["cmdline"] = R"("console=ttyS0 init=/init")";
        metadata["version"] = R"("0.3.3")";
    }
    void write_metadata() const {
        std::string json;
        for (const auto& [key, value] : metadata)
            json += (json.empty() ? "{\"" : ",\"") + key + "\":" + value;
        write("metadata.json", json + "}");
    }
    void write_sums() const {
        std::string sums;
        for (const auto& name : summed)
            sums += crypto::sha256_hex(read(name)) + "  " + name + "\n";
        write("sha256sum.txt", sums);
    }
    /// metadata.json, sha256sum.txt and digest.txt that agree with the files.
    ImageDirectory& seal() {
        write_metadata();
        write_sums();
        write("digest.txt", crypto::sha256_hex(read("sha256sum.txt")) + "\n");
        return *this;
    }

private:
    TemporaryDirectory folder_;
    std::string path_;
};

} // namespace host_runner::tests
