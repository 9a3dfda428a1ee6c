// SPDX-License-Identifier: Apache-2.0
#include "fd_table.hpp"

#include <algorithm>
#include <utility>

namespace host_runner::wasm::wasi {

Answer<Entry*> FdTable::get(std::uint32_t fd) {
    if (fd >= entries_.size() || !entries_[fd])
        return refuse(Errno::badf);
    return entries_[fd].get();
}

Answer<void> FdTable::check_room() const {
    const bool full = entries_.size() >= max_entries_ &&
                      std::find(entries_.begin(), entries_.end(), nullptr) == entries_.end();
    if (full)
        return refuse(Errno::mfile);
    return {};
}

Answer<std::uint32_t> FdTable::insert(Entry entry) {
    WASI_CHECK(check_room());
    auto place = std::find(entries_.begin(), entries_.end(), nullptr);
    if (place == entries_.end())
        place = entries_.insert(place, nullptr);
    *place = std::make_unique<Entry>(std::move(entry));
    return static_cast<std::uint32_t>(place - entries_.begin());
}

std::unique_ptr<Entry> FdTable::take(std::uint32_t fd) {
    return std::move(entries_[fd]);
}

std::unique_ptr<Entry> FdTable::replace(std::uint32_t from, std::uint32_t to) {
    return std::exchange(entries_[to], std::move(entries_[from]));
}

std::vector<std::unique_ptr<Entry>> FdTable::take_all() noexcept {
    auto all = std::exchange(entries_, {});
    std::erase(all, nullptr);
    return all;
}

} // namespace host_runner::wasm::wasi
