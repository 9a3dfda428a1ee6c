// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The functions of preview 1, by the file that has them. Each checks every pointer it gets before
/// it changes anything.

#include "state.hpp"

namespace host_runner::wasm::wasi::calls {

// process_calls.cpp
Answer<void> args_get(Call& call);
Answer<void> args_sizes_get(Call& call);
Answer<void> environ_get(Call& call);
Answer<void> environ_sizes_get(Call& call);
Answer<void> proc_exit(Call& call);
Answer<void> proc_raise(Call& call);
Answer<void> random_get(Call& call);
Answer<void> sched_yield(Call& call);

// clock_calls.cpp
Answer<void> clock_res_get(Call& call);
Answer<void> clock_time_get(Call& call);

// fd_calls.cpp
Answer<void> fd_advise(Call& call);
Answer<void> fd_allocate(Call& call);
Answer<void> fd_close(Call& call);
Answer<void> fd_datasync(Call& call);
Answer<void> fd_fdstat_get(Call& call);
Answer<void> fd_fdstat_set_flags(Call& call);
Answer<void> fd_fdstat_set_rights(Call& call);
Answer<void> fd_prestat_dir_name(Call& call);
Answer<void> fd_prestat_get(Call& call);
Answer<void> fd_renumber(Call& call);
Answer<void> fd_seek(Call& call);
Answer<void> fd_sync(Call& call);
Answer<void> fd_tell(Call& call);

// stat_calls.cpp
Answer<void> fd_filestat_get(Call& call);
Answer<void> fd_filestat_set_size(Call& call);
Answer<void> fd_filestat_set_times(Call& call);
Answer<void> path_filestat_get(Call& call);
Answer<void> path_filestat_set_times(Call& call);

// read_write_calls.cpp
Answer<void> fd_pread(Call& call);
Answer<void> fd_pwrite(Call& call);
Answer<void> fd_read(Call& call);
Answer<void> fd_write(Call& call);

// readdir_calls.cpp
Answer<void> fd_readdir(Call& call);

// path_calls.cpp
Answer<void> path_create_directory(Call& call);
Answer<void> path_link(Call& call);
Answer<void> path_open(Call& call);
Answer<void> path_readlink(Call& call);
Answer<void> path_remove_directory(Call& call);
Answer<void> path_rename(Call& call);
Answer<void> path_symlink(Call& call);
Answer<void> path_unlink_file(Call& call);

// poll_calls.cpp
Answer<void> poll_oneoff(Call& call);

// socket_calls.cpp
Answer<void> sock_accept(Call& call);
Answer<void> sock_recv(Call& call);
Answer<void> sock_send(Call& call);
Answer<void> sock_shutdown(Call& call);

} // namespace host_runner::wasm::wasi::calls
