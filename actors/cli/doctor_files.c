/* doctor_files: what lies on the volume, and the secrets. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "actors/cli/backup.h"
#include "actors/cli/doctor.h"
#include "actors/cli/files.h"
#include "bus/curve.h"

enum {
    DISK_FAIL_MIB = 64,
    DISK_WARN_MIB = 1024,
    INODES_WARN = 1000,
    KEY_LARGEST = 4096,
    TOKENS_LARGEST = 1 << 20,
    HEX = 64
};

/* ---- The volume ---- */

/* statfs(2). On these, locks and maps of several machines cannot be trusted. */
static const struct {
    unsigned long magic;
    const char *name;
} far_systems[] = {{0x6969, "NFS"},      {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB"},
                   {0x00C36400, "Ceph"}, {0x01021997, "9p"},   {0x65735546, "FUSE"}};

static void look_at_volume(doctor_t *self)
{
    arena_t *arena = self->cli->arena;
    const char *dir = self->cli->data_dir;
    struct statfs info;
    struct statvfs disk;
    if (statfs(dir, &info) || statvfs(dir, &disk))
        return;
    const char *far = NULL;
    for (size_t i = 0; i < sizeof(far_systems) / sizeof(*far_systems); i++)
        if ((unsigned long)(uint32_t)info.f_type == far_systems[i].magic)
            far = far_systems[i].name;
    bool nfs = far && !strcmp(far, "NFS");
    if (disk.f_flag & ST_RDONLY)
        doctor_say(self, FINDING_FAIL, "volume", "it is mounted read-only",
                   "mount it for writing; a failing disk is often made read-only by the kernel");
    else if (far)
        doctor_say(
            self, nfs ? FINDING_FAIL : FINDING_WARN, "volume",
            arena_printf(arena, "%s is on %s, where locks and maps cannot be trusted", dir, far),
            nfs ? "stores are refused there: use a local disk or a ReadWriteOnce volume"
                : "make sure that only one machine has it, or use a local disk");
    else
        doctor_say(self, FINDING_OK, "volume", "local, writable", "");
}

static void look_at_disk(doctor_t *self)
{
    struct statvfs disk;
    if (statvfs(self->cli->data_dir, &disk))
        return;
    unsigned long long free_mib = (unsigned long long)disk.f_bavail * disk.f_frsize >> 20;
    finding_t finding = free_mib < DISK_FAIL_MIB   ? FINDING_FAIL
                        : free_mib < DISK_WARN_MIB ? FINDING_WARN
                                                   : FINDING_OK;
    doctor_say(self, finding, "disk space",
               arena_printf(self->cli->arena, "%llu MiB free", free_mib),
               finding == FINDING_OK ? "" : "make room before writes are refused");
    if (disk.f_files && disk.f_favail < INODES_WARN)
        doctor_say(self, FINDING_WARN, "inodes", "fewer than 1000 left", "remove small files");
}

/* ---- Stores ---- */

typedef struct shelf {
    size_t companies, odd, older;
    unsigned long long bytes;
    const char *trouble; /* the first company that cannot be used, and why */
} shelf_t;

static void look_at_store(doctor_t *self, const actor_def_t *def, const char *company, bool live,
                          shelf_t *shelf)
{
    arena_t *arena = self->cli->arena;
    const char *dir =
        arena_printf(arena, "%s/%s/%s/store", self->cli->data_dir, def->name, company);
    struct stat info;
    uint32_t format = 0;
    if (stat(arena_printf(arena, "%s/data.mdb", dir), &info))
        return; /* only working copies of files so far */
    shelf->companies++;
    shelf->bytes += (unsigned long long)info.st_size;
    err_t err = store_peek(dir, live, arena, &format);
    shelf->older += !err_is(err) && format < def->format;
    if (shelf->trouble || (!err_is(err) && format <= def->format))
        return;
    shelf->trouble = err_is(err)
                         ? arena_printf(arena, "company '%s': %s", company, err_what(err))
                         : arena_printf(arena, "company '%s' is of format %u, newer than %u",
                                        company, format, def->format);
}

/* Opening many takes a while; more are only counted. */
static void look_at_shelf(doctor_t *self, const actor_def_t *def)
{
    arena_t *arena = self->cli->arena;
    const char *dir = arena_printf(arena, "%s/%s", self->cli->data_dir, def->name);
    DIR *open = opendir(dir);
    shelf_t shelf = {0};
    if (!open)
        return;
    bool live = doctor_lock_holder(arena_printf(arena, "%s/owner", dir)) != 0;
    for (struct dirent *entry; (entry = readdir(open));) {
        const char *name = entry->d_name;
        if (files_kind(arena_printf(arena, "%s/%s", dir, name)) != FILES_DIR || *name == '.')
            continue;
        if (frame_company_name(name))
            look_at_store(self, def, name, live, &shelf);
        else
            shelf.odd++;
    }
    closedir(open);
    const char *what = arena_printf(arena, "%zu %s, %llu MiB, format %u", shelf.companies,
                                    shelf.companies == 1 ? "company" : "companies",
                                    shelf.bytes >> 20, def->format);
    const char *name = arena_printf(arena, "%s stores", def->name);
    if (shelf.trouble)
        doctor_say(self, FINDING_FAIL, name, shelf.trouble,
                   "use the program that wrote it, or restore a backup");
    else if (shelf.older)
        doctor_say(self, FINDING_WARN, name,
                   arena_printf(arena, "%s; %zu of an older format", what, shelf.older),
                   "the next start brings them up to date: make a backup before");
    else if (shelf.odd)
        doctor_say(
            self, FINDING_WARN, name,
            arena_printf(arena, "%s; %zu folders whose name no company can have", what, shelf.odd),
            "nobody reads them: move them away");
    else
        doctor_say(self, FINDING_OK, name, what, "");
}

static bool count_aside(void *ctx, const char *path, files_kind_t kind)
{
    *(size_t *)ctx += kind == FILES_DIR && backup_begins(path, ASIDE_DIR);
    return false;
}

static void look_at_restores(doctor_t *self)
{
    arena_t *arena = self->cli->arena;
    size_t aside = 0;
    err_t err = cli_check_restored(self->cli);
    if (err_is(err))
        doctor_say(self, FINDING_FAIL, "restore", err_what(err), "nothing starts before that");
    err = files_walk(arena, self->cli->data_dir, count_aside, &aside);
    if (!err_is(err) && aside)
        doctor_say(
            self, FINDING_WARN, "restore",
            arena_printf(arena, "%zu " ASIDE_DIR "… directories hold what was there before", aside),
            "remove them when they are not needed any more");
}

bool doctor_data(doctor_t *self)
{
    arena_t *arena = self->cli->arena;
    const char *dir = self->cli->data_dir;
    struct stat info;
    if (stat(dir, &info)) {
        bool absent = errno == ENOENT;
        doctor_say(self, absent ? FINDING_WARN : FINDING_FAIL, "data directory",
                   arena_printf(arena, "%s: %s", dir, strerror(errno)),
                   absent ? "agency up makes it" : "make it readable for this user");
        return false;
    }
    if (S_ISDIR(info.st_mode))
        look_at_volume(self);
    if (!S_ISDIR(info.st_mode) || access(dir, R_OK | W_OK | X_OK)) {
        doctor_say(self, FINDING_FAIL, "data directory",
                   arena_printf(arena, "%s is no directory that this user may write", dir),
                   "give another --data or change its owner");
        return false;
    }
    bool open = info.st_mode & 07;
    doctor_say(self, open ? FINDING_WARN : FINDING_OK, "data directory",
               arena_printf(arena, "%s, mode %03o", dir, (unsigned)info.st_mode & 0777),
               open ? "others on this machine can look in; chmod 700 it" : "");
    look_at_disk(self);
    look_at_restores(self);
    for (const cli_actor_t *at = self->cli->house->actors; at->def; at++)
        if (at->def->tables)
            look_at_shelf(self, at->def);
    return true;
}

/* ---- Secrets ---- */

/* A small file as text; NULL and errno when it cannot be read. */
static const char *read_small(arena_t *arena, const char *path, size_t most, struct stat *info)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, info)) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        errno = code;
        return NULL;
    }
    char *text = arena_alloc(arena, most + 1);
    ssize_t size = read(fd, text, most);
    close(fd);
    text[size > 0 ? size : 0] = '\0';
    return text;
}

static void look_at_secret(doctor_t *self, const char *name, const char *path, bool curve)
{
    arena_t *arena = self->cli->arena;
    struct stat info;
    const char *text = read_small(arena, path, KEY_LARGEST, &info);
    if (!text) {
        doctor_say(self, FINDING_FAIL, name, arena_printf(arena, "%s: %s", path, strerror(errno)),
                   "correct the setting, or make the file readable for this user");
    } else if (curve && strcspn(text, " \t\r\n") != CURVE_KEY_SIZE) {
        doctor_say(self, FINDING_FAIL, name,
                   arena_printf(arena, "%s holds no key of %d characters", path, CURVE_KEY_SIZE),
                   "make one with agency keygen DIR");
    } else {
        bool open = info.st_mode & 077;
        doctor_say(self, open ? FINDING_WARN : FINDING_OK, name,
                   arena_printf(arena, "%s, mode %03o", path, (unsigned)info.st_mode & 0777),
                   open ? "others can read it; chmod 600 it" : "");
    }
}

static bool count_keys(void *ctx, const char *path, files_kind_t kind)
{
    size_t size = strlen(path);
    *(size_t *)ctx += kind != FILES_DIR && size > 4 && !strcmp(path + size - 4, ".pub");
    return false;
}

/* Of bus.curve_allow and bus.curve_servers. */
static void look_at_publics(doctor_t *self, const char *name, const char *path)
{
    arena_t *arena = self->cli->arena;
    size_t keys = 0;
    if (access(path, R_OK)) {
        doctor_say(self, FINDING_FAIL, name, arena_printf(arena, "%s: %s", path, strerror(errno)),
                   "correct the setting; docs/cluster.md says what belongs there");
        return;
    }
    if (files_kind(path) == FILES_DIR && !err_is(files_walk(arena, path, count_keys, &keys)) &&
        !keys)
        doctor_say(self, FINDING_WARN, name, arena_printf(arena, "no .pub file in %s", path),
                   "copy the public keys of the others there");
    else
        doctor_say(self, FINDING_OK, name, path, "");
}

/* The first line that is no token, by its form; 0: all are. */
static unsigned bad_token_line(const char *text)
{
    unsigned number = 0;
    while (*text) {
        size_t size = strcspn(text, "\n"), blank = strspn(text, " \t\r");
        number++;
        bool empty = blank >= size || text[blank] == '#';
        if (!empty && (strncmp(text + blank, "sha256:", 7) != 0 ||
                       strspn(text + blank + 7, "0123456789abcdef") != HEX))
            return number;
        text += size + (text[size] == '\n');
    }
    return 0;
}

static void look_at_tokens(doctor_t *self)
{
    arena_t *arena = self->cli->arena;
    const char *path = self->cli->tokens;
    struct stat info;
    if (!path) {
        doctor_say(self, FINDING_OK, "tokens", "none; only this machine may call", "");
        return;
    }
    const char *text = read_small(arena, path, TOKENS_LARGEST, &info);
    unsigned line = text ? bad_token_line(text) : 0;
    bool open = text && info.st_mode & 077;
    if (!text)
        doctor_say(self, FINDING_FAIL, "tokens",
                   arena_printf(arena, "%s: %s", path, strerror(errno)),
                   "correct --tokens or AGENCY_TOKENS");
    else if (line)
        doctor_say(self, FINDING_FAIL, "tokens",
                   arena_printf(arena, "%s, line %u is no token", path, line),
                   "write: sha256:<64 hex digits> companies=a,b role=reader|operator|admin "
                   "name=NAME");
    else
        doctor_say(self, open ? FINDING_WARN : FINDING_OK, "tokens",
                   arena_printf(arena, "%s, mode %03o", path, (unsigned)info.st_mode & 0777),
                   open ? "others can read it; chmod 600 it" : "");
}

void doctor_secrets(doctor_t *self)
{
    const bus_t *bus = &self->place.settings;
    const char *seal = arena_printf(self->cli->arena, "%s/gateway.key", self->cli->data_dir);
    look_at_tokens(self);
    if (files_kind(seal) != FILES_ABSENT)
        look_at_secret(self, "gateway.key", seal, false);
    if (bus->curve_key)
        look_at_secret(self, "curve key", bus->curve_key, true);
    if (bus->curve_allow)
        look_at_publics(self, "curve allow list", bus->curve_allow);
    if (bus->curve_servers)
        look_at_publics(self, "curve servers", bus->curve_servers);
}
