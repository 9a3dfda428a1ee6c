// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/choice.hpp"

#include <gmock/gmock.h>

namespace host_runner::usernet {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class ChoiceTest : public testing::Test {
public:
    [[nodiscard]] Result<Choice> choose() const {
        return choose_backend({network, egress, host_services, runner_by_tcp, programs});
    }
    [[nodiscard]] Choice good_choice() const {
        auto choice = choose();
        EXPECT_TRUE(choice) << choice.error().describe();
        return choice.value_or(Choice{});
    }
    [[nodiscard]] Error error() const {
        const auto choice = choose();
        EXPECT_FALSE(choice);
        return choice ? Error{} : choice.error();
    }

    spec::Network network;
    bool egress = false;
    bool host_services = false;
    bool runner_by_tcp = false;
    Programs programs{"/lib/user_network", "/usr/bin/passt", ""};
};

TEST_F(ChoiceTest, leaves_a_closed_network_to_qemu) {
    EXPECT_EQ(good_choice().backend, Backend::qemu);
    EXPECT_THAT(good_choice().warning, IsEmpty());
}

TEST_F(ChoiceTest, takes_passt_for_an_open_one) {
    egress = true;
    EXPECT_EQ(good_choice().backend, Backend::passt);
    EXPECT_THAT(good_choice().notice, HasSubstr("passt"));
}

TEST_F(ChoiceTest, says_why_it_does_not_take_passt) {
    egress = true;
    programs.passt_problem = "it is too old";
    const auto choice = good_choice();
    EXPECT_EQ(choice.backend, Backend::slirp);
    EXPECT_THAT(choice.notice, HasSubstr("not passt: it is too old"));
    EXPECT_THAT(choice.warning, IsEmpty());
}

TEST_F(ChoiceTest, warns_of_what_qemu_alone_shows_an_open_guest) {
    egress = true;
    programs = {};
    const auto choice = good_choice();
    EXPECT_EQ(choice.backend, Backend::qemu);
    EXPECT_THAT(choice.warning, HasSubstr("every service on this host's loopback"));
}

TEST_F(ChoiceTest, relays_services_of_the_host_by_user_network_only) {
    host_services = true;
    for (const bool open : {false, true}) {
        egress = open;
        EXPECT_EQ(good_choice().backend, Backend::slirp);
    }
    programs.user_network.clear();
    EXPECT_EQ(error().code, ErrorCode::unsupported);
    EXPECT_THAT(error().hint, HasSubstr("libslirp0"));
}

TEST_F(ChoiceTest, leads_to_a_runner_on_tcp) {
    runner_by_tcp = true;
    egress = true;
    EXPECT_EQ(good_choice().backend, Backend::slirp);
    programs.user_network.clear();
    EXPECT_EQ(good_choice().backend, Backend::qemu) << "with a warning, as ever";
    EXPECT_THAT(good_choice().warning, HasSubstr("loopback"));
    egress = false;
    EXPECT_EQ(error().code, ErrorCode::unsupported);
}

TEST_F(ChoiceTest, does_what_is_asked_or_says_why_not) {
    network.user = spec::UserNetwork::slirp;
    EXPECT_EQ(good_choice().backend, Backend::slirp);
    network.user = spec::UserNetwork::qemu;
    EXPECT_EQ(good_choice().backend, Backend::qemu);
    runner_by_tcp = true;
    EXPECT_EQ(error().code, ErrorCode::invalid_argument);
    runner_by_tcp = false;

    network.user = spec::UserNetwork::passt;
    EXPECT_EQ(error().code, ErrorCode::invalid_argument) << "it cannot close the network";
    egress = true;
    EXPECT_EQ(good_choice().backend, Backend::passt);
    programs.passt_problem = "it is too old";
    EXPECT_THAT(error().message, HasSubstr("too old"));
    programs.passt.clear();
    EXPECT_EQ(error().code, ErrorCode::unsupported);
}

TEST_F(ChoiceTest, is_not_asked_without_a_user_network) {
    network.mode = spec::NetworkMode::none;
    EXPECT_EQ(good_choice().backend, Backend::none);
    network = {spec::NetworkMode::bridge, "br0"};
    EXPECT_EQ(good_choice().backend, Backend::bridge);
}

} // namespace
} // namespace host_runner::usernet
