// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/vm_spec.hpp"

#include <functional>

#include <gmock/gmock.h>

namespace host_runner::spec {
namespace {

using testing::HasSubstr;

TEST(QgsAddressParser, takes_vsock_and_unix_addresses_and_formats_them_back) {
    EXPECT_EQ(parse_qgs_address("vsock:3:4051").value(), (QgsAddress{3, 4051, {}}));
    for (const char* text : {"vsock:2:4050", "unix:/run/tdx-qgs/qgs.socket"})
        EXPECT_EQ(format_qgs_address(parse_qgs_address(text).value()), text);
}

TEST(QgsAddressParser, refuses_other_text) {
    for (const std::string& text :
         {std::string(), std::string("vsock"), std::string("vsock:2"), std::string("vsock:2:0"),
          std::string("vsock:x:1"), std::string("vsock:4294967296:1"), std::string("unix:"),
          std::string("unix:relative"), std::string("unix:/a b"), "unix:/" + std::string(107, 'x'),
          std::string("tcp:127.0.0.1:4050")})
        EXPECT_FALSE(parse_qgs_address(text)) << text;
}

TEST(KeyProviderParser, takes_every_form_and_formats_it_back) {
    EXPECT_EQ(parse_key_provider("relay=10.0.0.5:9000").value().relay_port, 9000);
    EXPECT_EQ(parse_key_provider("kms=https://a,https://b:8000/x").value().kms_urls,
              (std::vector<std::string>{"https://a", "https://b:8000/x"}));
    for (const char* text :
         {"local", "none", "relay=10.0.0.5:9000", "relay=[::1]:9000", "kms=https://a,https://b"})
        EXPECT_EQ(format_key_provider(parse_key_provider(text).value()), text);
}

TEST(KeyProviderParser, refuses_other_text) {
    for (const char* text : {"", "Local", "relay", "relay=", "relay=host", "relay=:1", "relay=h:0",
                             "relay=h:65536", "relay=h h:1", "kms=", "kms=http://a", "kms=https://",
                             "kms=https:///x", "kms=https://a,", "kms=https://a b", "vault"})
        EXPECT_FALSE(parse_key_provider(text)) << text;
}

TEST(NetworkParser, takes_user_none_and_bridges) {
    EXPECT_EQ(parse_network("user").value(), Network{});
    EXPECT_EQ(parse_network("none").value().mode, NetworkMode::none);
    EXPECT_EQ(parse_network("bridge=br0").value(), (Network{NetworkMode::bridge, "br0"}));
}

TEST(NetworkParser, takes_who_makes_the_user_network) {
    EXPECT_EQ(parse_network("user=slirp").value().user, UserNetwork::slirp);
    EXPECT_EQ(parse_network("user=passt").value().user, UserNetwork::passt);
    EXPECT_EQ(parse_network("user=qemu").value().user, UserNetwork::qemu);
}

TEST(NetworkParser, refuses_other_text) {
    for (const char* text : {"", "tap", "user=", "user=auto", "user=none", "bridge",
                             "bridge=", "bridge=a/b", "bridge=br0,br=x", "bridge=sixteen_letters_"})
        EXPECT_FALSE(parse_network(text)) << text;
}

TEST(BackendParser, takes_qemu_and_libvirt_with_or_without_a_uri) {
    EXPECT_EQ(parse_backend("qemu").value(), Backend{});
    EXPECT_EQ(parse_backend("libvirt").value(), (Backend{true, {}}));
    EXPECT_EQ(parse_backend("libvirt=qemu:///system?socket=/x").value(),
              (Backend{true, "qemu:///system?socket=/x"}));
}

TEST(BackendParser, refuses_other_text) {
    for (const auto* const text : {"", "xen", "libvirt=", "libvirt=system", "libvirt=qemu:// x"})
        EXPECT_FALSE(parse_backend(text)) << text;
}

TEST(RestartRuleParser, takes_no_and_on_failure_with_a_count) {
    EXPECT_FALSE(parse_restart_rule("no").value().on_failure);
    EXPECT_EQ(parse_restart_rule("on-failure").value(), (RestartRule{true, 5}));
    EXPECT_EQ(parse_restart_rule("on-failure:3").value(), (RestartRule{true, 3}));
}

TEST(RestartRuleParser, refuses_other_text) {
    for (const char* text : {"", "always", "on-failure:", "on-failure:0", "on-failure:-1",
                             "on-failure:x", "on-failures"})
        EXPECT_FALSE(parse_restart_rule(text)) << text;
}

TEST(InstanceNameParser, takes_letters_digits_and_some_signs) {
    for (const std::string& name : {std::string("a"), std::string("web-1_B.c"),
                                    std::string("0123456789"), std::string(63, 'x')})
        EXPECT_EQ(parse_instance_name(name).value(), name);
}

TEST(InstanceNameParser, refuses_what_could_be_a_path_an_option_or_an_id) {
    for (const std::string& name :
         {std::string(), std::string("-x"), std::string(".hidden"), std::string("a/b"),
          std::string("a b"), std::string("\xc3\xa4"), std::string(64, 'x'),
          std::string("0123456789ab"), std::string("ABCDEFabcdef")})
        EXPECT_FALSE(parse_instance_name(name)) << name;
}

VmSpec good_spec() {
    VmSpec spec;
    spec.image_path = "image";
    return spec;
}

/// The error after `change`; a failure when there is none.
Error refused(const std::function<void(VmSpec&)>& change) {
    auto spec = good_spec();
    change(spec);
    const auto checked = check_vm_spec(spec);
    EXPECT_FALSE(checked);
    return checked ? Error{} : checked.error();
}

TEST(CheckVmSpec, takes_the_defaults) {
    EXPECT_TRUE(check_vm_spec(good_spec()));
}

TEST(CheckVmSpec, refuses_sizes_that_make_no_vm) {
    EXPECT_THAT(refused([](VmSpec& s) { s.cpus = 0; }).message, HasSubstr("--cpus 0"));
    EXPECT_THAT(refused([](VmSpec& s) { s.memory_bytes = 1000; }).message, HasSubstr("--memory"));
    EXPECT_THAT(refused([](VmSpec& s) { s.disk_bytes = mib; }).message, HasSubstr("--disk 1M"));
}

TEST(CheckVmSpec, refuses_ports_without_a_user_network) {
    const auto error = refused([](VmSpec& s) {
        s.network.mode = NetworkMode::none;
        s.ports = parse_port_mappings("tcp::1234:80").value();
    });
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_EQ(error.message, "--ports tcp:127.0.0.1:1234:80 cannot be forwarded with --net none");
}

TEST(CheckVmSpec, refuses_a_host_port_named_twice_but_not_two_free_ones) {
    const auto error = refused(
        [](VmSpec& s) { s.ports = parse_port_mappings("tcp::80:1,tcp:0.0.0.0:80:2").value(); });
    EXPECT_THAT(error.message, HasSubstr("host port 80 twice"));
    auto spec = good_spec();
    spec.ports = parse_port_mappings("tcp::0:1,tcp::0:2").value();
    EXPECT_TRUE(check_vm_spec(spec));
}

TEST(CheckVmSpec, refuses_egress_without_a_network) {
    EXPECT_THAT(refused([](VmSpec& s) {
                    s.network.mode = NetworkMode::none;
                    s.egress = true;
                }).message,
                HasSubstr("--egress on"));
}

TEST(CheckVmSpec, refuses_tdx_under_software_emulation) {
    const auto error = refused([](VmSpec& s) { s.accelerator = AcceleratorChoice::tcg; });
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_THAT(error.hint, HasSubstr("--tee none"));
}

TEST(CheckVmSpec, refuses_a_quote_service_without_tdx) {
    EXPECT_THAT(refused([](VmSpec& s) {
                    s.tee = Tee::none;
                    s.qgs = QgsAddress{};
                }).message,
                HasSubstr("--qgs"));
}

TEST(CheckVmSpec, refuses_a_kernel_command_line_that_cannot_be_passed) {
    EXPECT_THAT(refused([](VmSpec& s) { s.append = "a\nb"; }).message, HasSubstr("control"));
    EXPECT_THAT(refused([](VmSpec& s) { s.append.assign(2048, 'x'); }).message, HasSubstr("2047"));
}

TEST(CheckVmSpec, refuses_an_environment_that_no_service_gets) {
    EXPECT_THAT(refused([](VmSpec& s) { s.env_file = "x.env"; }).message, HasSubstr("x.env"));
}

TEST(CheckVmSpec, refuses_a_gpu_named_twice) {
    const auto error = refused(
        [](VmSpec& s) { s.gpus = parse_pci_addresses("b8:00.0,b9:00.0,0000:b8:00.0").value(); });
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_THAT(error.message, HasSubstr("0000:b8:00.0 twice"));
}

TEST(CheckVmSpec, refuses_a_placement_of_nothing) {
    EXPECT_THAT(refused([](VmSpec& s) { s.numa_node = 1; }).message, HasSubstr("--numa-node 1"));
    EXPECT_THAT(refused([](VmSpec& s) { s.hugepage_bytes = gib; }).message,
                HasSubstr("--hugepage-size"));
}

TEST(CheckVmSpec, refuses_an_account_where_libvirt_starts_qemu) {
    const auto error = refused([](VmSpec& s) {
        s.backend.libvirt = true;
        s.user = "host-runner";
    });
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_NE(error.message.find("--backend libvirt"), std::string::npos) << error.message;
}

TEST(CheckVmSpec, refuses_all_gpus_beside_one) {
    const auto error = refused([](VmSpec& s) {
        s.all_gpus = true;
        s.gpus = parse_pci_addresses("b8:00.0").value();
    });
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_EQ(error.message, "--gpus all already includes 0000:b8:00.0");
}

TEST(CheckVmSpec, takes_services_of_the_host_with_a_user_network_only) {
    VmSpec spec;
    spec.host_services = {5432};
    EXPECT_TRUE(check_vm_spec(spec));
    for (const char* network : {"none", "bridge=br0", "user=passt", "user=qemu"}) {
        const auto error = refused([&](VmSpec& s) {
            s.host_services = {5432};
            s.network = parse_network(network).value();
        });
        EXPECT_EQ(error.code, ErrorCode::invalid_argument) << network;
        EXPECT_THAT(error.message, HasSubstr(network));
    }
}

TEST(CheckVmSpec, refuses_to_close_what_it_cannot) {
    for (const char* network : {"bridge=br0", "user=passt"})
        EXPECT_THAT(refused([&](VmSpec& s) {
                        s.egress = false;
                        s.network = parse_network(network).value();
                    }).message,
                    HasSubstr(network));
}

TEST(CheckVmSpec, says_what_is_not_in_this_version_yet) {
    const std::vector<std::pair<std::string, std::function<void(VmSpec&)>>> cases{
        {"--key-provider relay=h:1",
         [](VmSpec& s) {
             s.key_provider = parse_key_provider("relay=h:1").value();
         }},
        {"--key-provider kms=https://a",
         [](VmSpec& s) {
             s.key_provider = parse_key_provider("kms=https://a").value();
         }},
    };
    for (const auto& [option, change] : cases) {
        const auto error = refused(change);
        EXPECT_EQ(error.code, ErrorCode::unsupported) << option;
        EXPECT_THAT(error.message, HasSubstr(option + " is not in this version yet"));
    }
}

} // namespace
} // namespace host_runner::spec
