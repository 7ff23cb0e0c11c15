/* The wall clock of a process, ahead by as many nanoseconds as the file named by TEST_CLOCK says; for LD_PRELOAD.
 *
 * The file is one 64-bit integer, shared with the test that writes it. Other clocks are left alone: what waits, waits
 * as long as ever. With TEST_CLOCK_STANDS=wall no time passes but what the file says, and with TEST_CLOCK_STANDS=all
 * none on any clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

static const volatile int64_t *ahead;
static int stands, all;
static int (*of_the_system)(clockid_t, struct timespec *);
static struct timespec start[CLOCK_BOOTTIME + 1]; /* by clock, where time stands */

__attribute__((constructor)) static void open_clock(void)
{
    const char *path = getenv("TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    const char *kind = getenv("TEST_CLOCK_STANDS");

    if (file < 0)
        abort();
    for (clockid_t clock = 0; clock <= CLOCK_BOOTTIME; clock++)
        clock_gettime(clock, &start[clock]);
    all = kind && strcmp(kind, "all") == 0;
    stands = kind != NULL;
    ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (ahead == MAP_FAILED)
        abort();
    close(file);
}

static int ours(clockid_t clock)
{
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        return 1;
    return all && clock >= 0 && clock <= CLOCK_BOOTTIME && clock != CLOCK_PROCESS_CPUTIME_ID &&
           clock != CLOCK_THREAD_CPUTIME_ID;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status;

    if (!of_the_system) /* others' constructors ask for the time before ours has run */
        of_the_system = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    status = of_the_system(clock, now);
    if (status || !ahead || !ours(clock))
        return status;
    if (stands)
        *now = start[clock];
    now->tv_sec += *ahead / SECOND;
    now->tv_nsec += *ahead % SECOND;
    if (now->tv_nsec >= SECOND) {
        now->tv_nsec -= SECOND;
        now->tv_sec++;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec exact;

    clock_gettime(CLOCK_REALTIME, &exact);
    if (where)
        *where = exact.tv_sec;
    return exact.tv_sec;
}
