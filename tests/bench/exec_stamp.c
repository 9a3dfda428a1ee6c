// SPDX-License-Identifier: Apache-2.0
// Stands in for QEMU in the bench: notes when it was executed, then becomes the real one. So the time is taken at the exec
// itself, by another program than the one that is measured. Usage: exec_stamp ARGUMENT..., with BENCH_QEMU (the real
// program) and BENCH_STAMP (the file that gets CLOCK_MONOTONIC in nanoseconds, one line per exec) in the environment.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char** argv) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const char* program = getenv("BENCH_QEMU");
    const char* stamp = getenv("BENCH_STAMP");
    if (argc < 1 || program == NULL || stamp == NULL)
        return 125;
    FILE* file = fopen(stamp, "a");
    if (file == NULL)
        return 125;
    fprintf(file, "%lld\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
    fclose(file);
    execv(program, argv);
    return 125;
}
