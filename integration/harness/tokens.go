package harness

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// What the guarded registry wants; it listens on loopback and lives as long as the tests.
const (
	GuardedUser     = "tester"
	GuardedPassword = "secret-of-the-test"
	guardedHash     = "$2y$04$PdwALtu9cEWNxC2OBr0j1.nEEUgiKys6CuntMZ6DlhNaSh6OLo2qu"
)

// IdentityToken is what the token server takes in place of a password.
const IdentityToken = "secret-of-the-test-for-ever"

const tokenService, tokenIssuer = "bob-test-registry", "bob-test-tokens"

// A tokenServer gives GuardedUser, and who shows IdentityToken, tokens for all
// that they ask for (Docker Registry v2 token and OAuth2 authentication). It says
// that each ends after a second.
type tokenServer struct {
	realm       string
	key         *ecdsa.PrivateKey
	certificate []byte // DER; docker-registry takes tokens of its key
	server      *http.Server
}

// startTokens starts a token server on loopback. The caller closes its server.
func startTokens(ctx context.Context) (*tokenServer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tokenIssuer},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	// Clients refuse realms at an address of loopback.
	s := &tokenServer{realm: "http://localhost:" + port + "/token", key: key, certificate: certificate}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(l) }() // ends when it is closed
	return s, nil
}

// config is the registry's auth section, with the certificate in a file.
func (s *tokenServer) config(certificate string) string {
	return "auth: {token: {realm: '" + s.realm + "', service: " + tokenService + ", issuer: " + tokenIssuer + ", rootcertbundle: " + certificate + "}}\n"
}

func (s *tokenServer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate})
}

// ServeHTTP implements http.Handler.
func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	ok := user == GuardedUser && password == GuardedPassword
	if r.Method == http.MethodPost {
		ok = r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == IdentityToken
	}
	if !ok || r.FormValue("service") != tokenService {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var scopes []string
	for _, value := range r.Form["scope"] {
		scopes = append(scopes, strings.Fields(value)...)
	}
	token, err := s.token(scopes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 1}) // the client may be gone
}

// token signs a JWT (RFC 7519) with the access that docker-registry wants in it.
func (s *tokenServer) token(scopes []string) (string, error) {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, scope := range scopes {
		if parts := strings.SplitN(scope, ":", 3); len(parts) == 3 {
			granted = append(granted, access{parts[0], parts[1], strings.Split(parts[2], ",")})
		}
	}
	now := time.Now()
	header, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.certificate)}})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": tokenIssuer, "sub": GuardedUser, "aud": tokenService, "jti": rand.Text(), "access": granted,
		"nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(header) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	r, t, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64) // RFC 7518 section 3.4
	r.FillBytes(signature[:32])
	t.FillBytes(signature[32:])
	return signed + "." + encode(signature), nil
}
