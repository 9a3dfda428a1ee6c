// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/instance_folders.hpp"

namespace host_runner::instance {
namespace {

Record full_record() {
    auto record = tests::make_record("0123456789ab", "web");
    record.started_ms = 1'700'000'000'001;
    record.image_directory = "/images/native";
    record.image_name = "native";
    record.os_image_hash = "ff";
    record.accelerator = "tcg";
    record.disk_bytes = 1ULL << 40U;
    record.ports = {{spec::Protocol::tcp, "127.0.0.1", 8080, 80},
                    {spec::Protocol::udp, "0.0.0.0", 53, 53}};
    record.vsock_cid = 1000;
    record.network = "slirp";
    record.host_services = {5432, 8080};
    record.compose_path = "hello.yaml";
    record.compose_hash = "aa";
    record.kernel_command_line = "console=ttyS0 quiet";
    record.qemu_path = "/usr/bin/qemu-system-x86_64";
    record.qemu_version = "7.2.22";
    record.qemu_user = "host-runner";
    record.cgroup = "/sys/fs/cgroup/system.slice/host_runner@web.service/vm-0123456789ab";
    record.argv = {"qemu", "-name", "a \"b\""};
    record.backend = "libvirt";
    record.backend_address = "qemu:///system";
    record.backend_machine = "host-runner-0123456789ab";
    record.description = "<domain/>\n";
    record.working_directory = "/home/u";
    record.stdout_log = "/home/u/qemu_stdout.log";
    record.stderr_log = "/home/u/qemu_stderr.log";
    record.runner = {42, 12345, "6f8fa6d5-3a8f-4a54-a4a3-7d3c1a2c6d11"};
    record.restarts = 2;
    record.end = End{1'700'000'000'002, EndReason::qemu_died, ExitCode::qemu_died, "signal 9"};
    return record;
}

TEST(Record, decodes_to_what_was_encoded) {
    const auto bytes = encode_record(full_record());
    const auto record = decode_record(bytes);
    ASSERT_TRUE(record) << record.error().describe();
    EXPECT_EQ(encode_record(*record), bytes);
    EXPECT_EQ(record->ports, full_record().ports);
    EXPECT_EQ(record->argv, full_record().argv);
    EXPECT_EQ(record->network, "slirp");
    EXPECT_EQ(record->host_services, full_record().host_services);
    EXPECT_EQ(record->backend, "libvirt");
    EXPECT_EQ(record->description, "<domain/>\n");
    EXPECT_EQ(record->runner.start_ticks, 12345U);
    ASSERT_TRUE(record->end);
    EXPECT_EQ(record->end->reason, EndReason::qemu_died);
    EXPECT_EQ(record->end->exit_code, ExitCode::qemu_died);
}

TEST(Record, without_an_end_has_none) {
    const auto record = decode_record(encode_record(tests::make_record("0123456789ab")));
    ASSERT_TRUE(record);
    EXPECT_FALSE(record->end);
}

TEST(Record, replaces_what_is_not_utf8) {
    auto record = full_record();
    record.end->detail = "qemu: \xff\xfe";
    const auto decoded = decode_record(encode_record(record));
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(decoded->end->detail, "qemu: \xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Record, lets_members_of_a_newer_program_pass) {
    auto bytes = encode_record(full_record());
    bytes.insert(1, "\"new\":{\"a\":[1]},");
    EXPECT_TRUE(decode_record(bytes));
}

TEST(Record, that_is_broken_is_corrupt_data) {
    const auto good = encode_record(full_record());
    const auto with = [&](const std::string& from, const std::string& to) {
        auto bytes = good;
        bytes.replace(bytes.find(from), from.size(), to);
        return bytes;
    };
    for (const auto& bytes :
         {std::string(), good.substr(0, good.size() / 2), std::string("[]"),
          with("\"cpus\":2", "\"cpus\":\"2\""), with("\"cpus\":2", "\"cpus\":-1"),
          with("\"cpus\":2", "\"cpus\":4294967296"), with("0123456789ab", "../../../etc"),
          with("tcp:127.0.0.1:8080:80", "nonsense"), with("\"qemu_died\"", "\"bored\""),
          with("\"schema_version\":1", "\"schema_version\":2"),
          std::string(max_record_bytes + 1, ' ')}) {
        const auto record = decode_record(bytes);
        ASSERT_FALSE(record) << bytes;
        EXPECT_EQ(record.error().code, ErrorCode::corrupt_data) << bytes;
    }
}

TEST(InstanceId, is_12_lower_case_hex_digits) {
    EXPECT_TRUE(is_instance_id("0123456789ab"));
    for (const auto* text : {"", "0123456789a", "0123456789abc", "0123456789AB", "../../../etc"})
        EXPECT_FALSE(is_instance_id(text)) << text;
}

} // namespace
} // namespace host_runner::instance
