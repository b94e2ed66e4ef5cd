package harness

import (
	"archive/tar"
	"context"
	"errors"
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
