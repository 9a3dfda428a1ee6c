// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "host_runner/base/process.hpp"
#include "host_runner/qemu/launch_plan.hpp"

namespace host_runner::qemu {
namespace {

/// The words as a POSIX shell understands the line.
std::vector<std::string> words_of_shell(const std::string& line) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"/bin/sh", "-c", "for word in " + line + "; do printf '%s\\0' \"$word\"; done"};
    const auto output = run_captured(launcher, spec, std::chrono::seconds(20));
    EXPECT_TRUE(output) << output.error().describe();
    EXPECT_EQ(output->err, "");
    std::vector<std::string> words;
    for (std::size_t start = 0; start < output->out.size();) {
        const auto end = output->out.find('\0', start);
        words.push_back(output->out.substr(start, end - start));
        start = end + 1;
    }
    return words;
}

TEST(ShellQuote, a_shell_reads_back_every_word) {
    const std::vector<std::string> words{"plain",
                                         "",
                                         "two words",
                                         "it's",
                                         "'",
                                         "\"",
                                         "$HOME",
                                         "`id`",
                                         "$(id)",
                                         "a\\b",
                                         "*",
                                         "?",
                                         "[a-z]",
                                         "~",
                                         "~root",
                                         "a=~",
                                         "#c",
                                         "a;b",
                                         "a&b",
                                         "a|b",
                                         "<a>",
                                         "(a)",
                                         "{a,b}",
                                         "!x",
                                         "new\nline",
                                         "tab\t",
                                         "-n",
                                         "\xc3\xa4",
                                         R"({"driver":"vfio-pci","host":"00:01.0"})"};
    EXPECT_EQ(words_of_shell(shell_quote(words)), words);
}

TEST(ShellQuote, leaves_plain_words_readable) {
    EXPECT_EQ(shell_quote({"/usr/bin/qemu-system-x86_64", "-m", "8192M", "-sandbox",
                           "on,spawn=deny", "chardev:com0"}),
              "/usr/bin/qemu-system-x86_64 -m 8192M -sandbox on,spawn=deny chardev:com0");
}

TEST(ShellQuote, a_program_with_an_equals_sign_is_no_assignment) {
    EXPECT_EQ(shell_quote({"/opt/a=b/qemu", "x=y"}), "'/opt/a=b/qemu' x=y");
}

TEST(ShellQuote, a_program_with_an_equals_sign_and_a_quote_still_closes) {
    EXPECT_EQ(shell_quote({"a=b'c"}), "'a=b'\\''c'");
}

} // namespace
} // namespace host_runner::qemu
