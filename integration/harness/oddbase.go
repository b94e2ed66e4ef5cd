package harness

import (
	"archive/tar"
	"context"
	"errors"
	"strings"
)

// odd returns a base image that other builders have stumbled over.
func odd(ctx context.Context, image string) (*BaseImage, error) {
	base, err := busybox(ctx, true)
	if err != nil {
		return nil, err
	}
	var layers [][]File
	switch image {
	case "labelled":
		layers = labelled()
	case "malformed":
		layers = [][]File{{
			dir("etc", 0o755),
			file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n\n# a comment\nshort:x\n:::\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
			file("etc/group", 0o644, "root\nroot:x:0\n\nno-number:x:y:alice\nshort\nstaff:x:50:alice\nalice:x:1000"),
		}}
		base.Config.Env = append(base.Config.Env, "NO_VALUE", "=no name", "", "TWICE=1", "TWICE=2", "QUOTED=\"a b\"", "LINES=a\nb")
		base.Config.WorkingDir = "relative/dir/../there"
		base.Config.ExposedPorts = map[string]struct{}{"": {}, "80": {}, "x/y": {}}
		base.Config.Entrypoint = []string{""}
	case "outside":
		base.Config.OnBuild = []string{
			"COPY ../outside/file /climbed", "ADD ../../../../outside/file /added/", "COPY link/file /linked",
		}
	case "hidden":
		layers = hidden()
	case "nodes":
		layers = [][]File{Nodes(), {
			{Header: tar.Header{Typeflag: tar.TypeChar, Name: "over", Mode: 0o640, Uid: 7, Gid: 8}},
			{Header: tar.Header{Typeflag: tar.TypeLink, Name: "linked", Linkname: "var/jail/dev/null", Mode: 0o666}},
			file("dev/.wh.gone", 0, ""),
		}}
	default:
		return nil, errors.New("no such base image")
	}
	for _, files := range layers {
		layer, err := TarLayer(files)
		if err != nil {
			return nil, err
		}
		base.Layers = append(base.Layers, layer)
	}
	return base, nil
}

// labelled is a layer from a machine with security modules, signed files and ACLs
// that name IDs which no unprivileged user has.
func labelled() [][]File {
	label := map[string]string{"SCHILY.xattr.security.selinux": "system_u:object_r:bin_t:s0\x00"}
	// acl_ea_header and entries of linux/posix_acl_xattr.h: the user 2000000 may read.
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x80\x84\x1e\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	return [][]File{{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "opt/", Mode: 0o755, PAXRecords: label}},
		{Header: tar.Header{Name: "opt/labelled", Mode: 0o644, PAXRecords: label}, Body: "labelled"},
		{Header: tar.Header{Name: "opt/signed", Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.security.ima": "\x04\x04\xaa\xbb", "SCHILY.xattr.security.evm": "\x05\x02\xcc",
		}}, Body: "signed"},
		{Header: tar.Header{Name: "opt/acl", Mode: 0o640, PAXRecords: map[string]string{"SCHILY.xattr.system.posix_acl_access": acl}}, Body: "acl"},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "opt/acls/", Mode: 0o750, PAXRecords: map[string]string{
			"SCHILY.xattr.system.posix_acl_default": acl, "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y",
		}}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "opt/link", Linkname: "labelled", PAXRecords: label}},
	}, {
		dir("opt", 0o755), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "opt/acls/", Mode: 0o750, PAXRecords: label}}, file("opt/acls/above", 0o644, "above"),
	}}
}

// hidden is layers whose whiteouts stand where nothing is left to hide, before
// the directory they are in, or beside what takes the hidden name.
func hidden() [][]File {
	return [][]File{
		{
			dir("h", 0o755), dir("h/a", 0o755), dir("h/a/b", 0o755), file("h/a/b/c", 0o644, "1"), file("h/a/f", 0o644, "1"),
			dir("h/d", 0o755), file("h/d/x", 0o644, "1"), file("h/d/y", 0o644, "1"), file("h/was-file", 0o644, "1"),
			dir("h/was-dir", 0o755), file("h/was-dir/in", 0o644, "1"),
		},
		{
			file("h/.wh.a", 0, ""), file("h/a/.wh.b", 0, ""), file("h/a/b/.wh.c", 0, ""),
			file("h/d/.wh.x", 0, ""), file("h/d/.wh.never", 0, ""), file("h/.wh.never", 0, ""), file("none/.wh.never", 0, ""), dir("h/d", 0o711),
			file("h/.wh.was-file", 0, ""), dir("h/was-file", 0o755), file("h/was-file/in", 0o644, "2"),
			file("h/was-dir", 0o644, "2"), file("h/.wh.was-dir", 0, ""),
		},
		{dir("h", 0o755), dir("h/a", 0o700), file("h/a/g", 0o644, "3"), file("h/d/.wh.x", 0, "")},
	}
}

// Nodes is a tree of files that aren't all that users may make: devices, in /dev and
// elsewhere, which a further name leads to, and of which one is the 0:0 that overlayfs takes
// for a removed name; a fifo; files with capabilities, set-ID bits and access control lists;
// and one with a long name at a long path.
func Nodes() []File {
	special := func(name string, kind byte, major, minor, mode int64) File {
		return File{Header: tar.Header{Typeflag: kind, Name: name, Mode: mode, Devmajor: major, Devminor: minor}}
	}
	owned := func(f File, uid, gid int) File {
		f.Uid, f.Gid = uid, gid
		return f
	}
	const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep
	files := []File{
		dir("dev", 0o755), special("dev/null", tar.TypeChar, 1, 3, 0o666), owned(special("dev/sda", tar.TypeBlock, 8, 0, 0o660), 0, 6),
		special("dev/gone", tar.TypeChar, 1, 3, 0o666), dir("var", 0o755), dir("var/jail", 0o755), dir("var/jail/dev", 0o755),
		special("var/jail/dev/null", tar.TypeChar, 1, 3, 0o666), special("var/jail/dev/zero", tar.TypeChar, 1, 5, 0o666),
		special("var/jail/dev/console", tar.TypeChar, 5, 1, 0o600), owned(special("var/jail/dev/sdb", tar.TypeBlock, 8, 16, 0o640), 5, 6),
		special("var/jail/mark", tar.TypeChar, 0, 0, 0o600), file("over", 0o644, "not removed\n"),
		owned(special("fifo", tar.TypeFifo, 0, 0, 0o620), 3, 4),
		owned(file("su", 0o6755, "su\n"), 0, 5), owned(file("mail", 0o2711, "mail\n"), 8, 12), owned(dir("group", 0o2775), 0, 50), dir("tmp", 0o1777),
		{Header: tar.Header{Name: "ping", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}}, Body: "ping\n"},
	}
	files = append(files, labelled()[0][3:5]...) // with lists
	long := "long"
	for i := range 4 {
		files = append(files, dir(long, 0o755))
		long += "/" + strings.Repeat(string(rune('a'+i)), 200)
	}
	return append(files, dir(long, 0o755), file(long+"/"+strings.Repeat("n", 251), 0o644, "deep\n"))
}
