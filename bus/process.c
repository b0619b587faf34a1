#include "bus/process.h"

#include <dirent.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int64_t count_fds(void)
{
    int64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 3; /* . and .. and the directory itself */
}

/* proc(5): field 22 of stat is the start in clock ticks since the machine began. */
static double start_seconds(void)
{
    char text[1024];
    unsigned long long ticks = 0;
    struct timespec wall, boot;
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return 0;
    size_t size = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[size] = '\0';
    const char *at = strrchr(text, ')'); /* the name may hold anything */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, "%llu", &ticks) != 1)
        return 0;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    double machine =
        (double)(wall.tv_sec - boot.tv_sec) + (double)(wall.tv_nsec - boot.tv_nsec) / 1e9;
    return machine + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

void process_usage(process_usage_t *out)
{
    long long pages = 0, resident = 0;
    struct rusage usage;
    struct rlimit files;
    memset(out, 0, sizeof(*out));
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%lld %lld", &pages, &resident) == 2) {
            out->virtual_bytes = pages * sysconf(_SC_PAGESIZE);
            out->resident_bytes = resident * sysconf(_SC_PAGESIZE);
        }
        fclose(file);
    }
    if (!getrusage(RUSAGE_SELF, &usage))
        out->cpu_seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    if (!getrlimit(RLIMIT_NOFILE, &files))
        out->max_fds = (int64_t)files.rlim_cur;
    out->open_fds = count_fds();
    out->start_seconds = start_seconds();
}

void process_raise_files(void)
{
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* Only segments that are never written: the others hold what relocation has made of them. */
static int give_back(struct dl_phdr_info *info, size_t size, void *ctx)
{
    uintptr_t page = *(const uintptr_t *)ctx;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || (part->p_flags & PF_W))
            continue;
        uintptr_t begin = (info->dlpi_addr + part->p_vaddr) & ~(page - 1);
        uintptr_t end = (info->dlpi_addr + part->p_vaddr + part->p_filesz) & ~(page - 1);
        if (end > begin)
            madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

void process_settle(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    dl_iterate_phdr(give_back, &page);
}
