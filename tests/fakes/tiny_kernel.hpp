// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A guest of a few instructions in the form of a Linux kernel, so that a test can boot a real QEMU
/// to a known end within 0.1 s, also without KVM.

#include <array>
#include <string>
#include <string_view>

namespace host_runner::tests {

enum class TinyGuest {
    powers_off, ///< ACPI S5: writes SLP_EN to PM1a_CNT, which SeaBIOS puts at 0x604 on q35.
    resets,     ///< Writes to ICH9's reset control register, 0xcf9.
    waits,      ///< hlt, for ever.
};

/// A bzImage whose real-mode setup code is all there is. Offsets from Linux
/// Documentation/arch/x86/boot.rst; QEMU's option ROM jumps to offset 0x200.
inline std::string tiny_kernel(TinyGuest guest) {
    using namespace std::string_view_literals;
    std::string image(2048, '\0');
    const auto put = [&](std::size_t offset, std::string_view bytes) {
        image.replace(offset, bytes.size(), bytes);
    };
    put(0x1f1, "\x01"sv);             // setup_sects
    put(0x1fe, "\x55\xaa"sv);         // boot_flag
    put(0x200, "\xeb\x66"sv);         // jmp 0x268
    put(0x202, "HdrS"sv);             // header
    put(0x206, "\x0c\x02"sv);         // version 2.12
    put(0x211, "\x01"sv);             // loadflags: LOADED_HIGH
    put(0x22c, "\xff\xff\xff\x37"sv); // initrd_addr_max
    std::string code;
    switch (guest) {
    case TinyGuest::powers_off:
        code = "\xba\x04\x06"sv // mov dx, 0x604
               "\xb8\x00\x20"sv // mov ax, 0x2000
               "\xef"sv;        // out dx, ax
        break;
    case TinyGuest::resets:
        code = "\xba\xf9\x0c"sv // mov dx, 0xcf9
               "\xb0\x06"sv     // mov al, 6
               "\xee"sv;        // out dx, al
        break;
    case TinyGuest::waits:
        break;
    }
    code += "\xf4\xeb\xfd"sv; // hlt; jmp -1
    put(0x268, code);
    return image;
}

} // namespace host_runner::tests
