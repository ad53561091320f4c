/* Loaded before libc: the wall clock is off by the seconds that the file $CLOCK_OFFSET holds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <stdio.h>
#include <time.h>

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, now);
    const char *name = getenv("CLOCK_OFFSET");
    if (failed || which != CLOCK_REALTIME || !name) return failed;
    FILE *file = fopen(name, "r");
    long offset = 0;
    if (file) {
        if (fscanf(file, "%ld", &offset) != 1) offset = 0;
        fclose(file);
    }
    now->tv_sec += offset;
    return 0;
}
