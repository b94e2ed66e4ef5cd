package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

// TestProxyEnvironment reads the workspace's variables, after the flags, and leaves
// none of them.
func TestProxyEnvironment(t *testing.T) {
	t.Setenv("WORKSPACEKIT_BOBPROXY_BASEREF", "a/base")
	t.Setenv("WORKSPACEKIT_BOBPROXY_TARGETREF", "a/target")
	t.Setenv("WORKSPACEKIT_BOBPROXY_AUTH", "{}")
	t.Setenv("WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", `{"h":{}}`)
	cfg := &proxyConfig{targetRef: "b/target"}
	if err := cfg.readEnvironment(); err != nil {
		t.Fatal(err)
	}
	want := proxyConfig{baseRef: "a/base", targetRef: "b/target", auth: "{}", additionalAuth: `{"h":{}}`}
	if *cfg != want {
		t.Errorf("read %+v, want %+v", *cfg, want)
	}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "WORKSPACEKIT_") {
			t.Errorf("%s is left", variable)
		}
	}
}

// TestProxyEnvironmentOfBuilds refuses credentials in variables that builds get too.
func TestProxyEnvironmentOfBuilds(t *testing.T) {
	for _, name := range []string{"BOB_AUTH", "BOB_ADDITIONAL_AUTH"} {
		t.Setenv(name, `{"s3cr3t":{}}`)
		err := run(t.Context(), []string{"proxy", "--target-ref", "x"}, strings.NewReader(""), io.Discard, io.Discard)
		if exitCode(err) != exitUsage || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}
