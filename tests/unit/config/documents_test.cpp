// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/documents.hpp"

#include <algorithm>
#include <sstream>

#include <gmock/gmock.h>

#include "fakes/golden_file.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::config {
namespace {

using testing::HasSubstr;

/// `path` is relative to the project's folder.
testing::AssertionResult is_as_committed(const std::string& path, const std::string& text) {
    return tests::matches_golden(std::string(HOST_RUNNER_SOURCE_DIR) + "/" + path, text);
}

TEST(Help, is_as_committed) {
    EXPECT_TRUE(is_as_committed("tests/golden/help/host_runner.txt", format_help()));
    EXPECT_TRUE(is_as_committed("tests/golden/help/run.txt", format_help(*find_verb("run"))));
    EXPECT_TRUE(is_as_committed("tests/golden/help/exec.txt", format_help(*find_verb("exec"))));
}

TEST(Help, keeps_to_the_width_of_a_page) {
    for (const auto& verb : verbs()) {
        std::istringstream lines(format_help(verb));
        for (std::string line; std::getline(lines, line);)
            EXPECT_LE(line.size(), 100U) << verb.name << ": " << line;
    }
}

TEST(Help, names_every_option_of_its_verb) {
    for (const auto& verb : verbs())
        for (const auto* option : options_of(verb.name))
            EXPECT_THAT(format_help(verb), HasSubstr(std::string(option->name)));
}

TEST(ManPage, is_as_committed) {
    EXPECT_TRUE(is_as_committed("docs/man/host_runner.1", format_man_page()));
}

TEST(ManPage, names_every_exit_code_and_variable) {
    const auto page = format_man_page();
    for (const auto& code : exit_code_table())
        EXPECT_THAT(page, HasSubstr(std::to_string(static_cast<int>(code.code)) + " (" +
                                    std::string(code.name) + ")"));
    for (const auto& option : options())
        EXPECT_THAT(page, HasSubstr(environment_name(option)));
}

TEST(Completion, is_as_committed) {
    for (const std::string shell : {"bash", "zsh", "fish"})
        EXPECT_TRUE(is_as_committed("tests/golden/help/completion." + shell,
                                    format_completion(shell).value()));
}

TEST(Completion, refuses_another_shell) {
    const auto refused = format_completion("tcsh");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

/// What bash offers for the words, the last of which is being typed.
std::vector<std::string> bash_offers(const std::vector<std::string>& words) {
    const tests::TemporaryDirectory directory;
    EXPECT_TRUE(write_file_atomic(directory / "script", format_completion("bash").value() + R"(
host_runner() { printf 'ID  NAME\n0123456789ab  web\n'; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_host_runner
printf '%s\n' "${COMPREPLY[@]}"
)"));
    ProcessSpec spec;
    spec.argv = {"bash", directory / "script"};
    spec.argv.insert(spec.argv.end(), words.begin(), words.end());
    ForkExecLauncher launcher;
    const auto output = run_captured(launcher, spec, std::chrono::seconds(20)).value();
    EXPECT_EQ(output.err, "");
    std::istringstream lines(output.out);
    std::vector<std::string> offers;
    for (std::string line; std::getline(lines, line);)
        if (!line.empty())
            offers.push_back(line);
    return offers;
}

TEST(BashCompletion, offers_verbs_options_choices_and_instances) {
    using testing::Contains;
    using testing::ElementsAre;
    EXPECT_THAT(bash_offers({"host_runner", "co"}),
                ElementsAre("console", "compose", "config", "completion"));
    EXPECT_THAT(bash_offers({"host_runner", "run", "--mem"}), ElementsAre("--memory"));
    EXPECT_THAT(bash_offers({"host_runner", "run", "--tee", ""}), ElementsAre("tdx", "none"));
    EXPECT_THAT(bash_offers({"host_runner", "-l", "debug", "run", "--accel", "k"}),
                ElementsAre("kvm"));
    EXPECT_THAT(bash_offers({"host_runner", "image", "v"}), ElementsAre("verify"));
    EXPECT_THAT(bash_offers({"host_runner", "image", "import", "--sh"}), ElementsAre("--sha256"));
    EXPECT_THAT(bash_offers({"host_runner", "stop", "-i", "01"}), ElementsAre("0123456789ab"));
    EXPECT_THAT(bash_offers({"host_runner", "logs", "web", "s"}),
                ElementsAre("serial", "services"));
}

} // namespace
} // namespace host_runner::config
