// The users API in Fastify, with schemas for input and output, pg's pool, and a cluster of processes.
import cluster from "node:cluster";

import etag from "@fastify/etag";
import jwt from "@fastify/jwt";
import { verify } from "@node-rs/argon2";
import Fastify from "fastify";
import pg from "pg";

const { DATABASE_URL, ISSUER, PORT, PUBLIC_KEY, PRIVATE_KEY, THREADS, WORKERS } = process.env;
const TOKEN_SECONDS = 900;
const SESSION_SECONDS = 90 * 86_400;
const READERS = ["support", "admin"];
const WRITERS = ["admin"];

const MEMBERS = `id, email, name, role, is_active, email_verified, external_id, public_metadata AS metadata,
  version, created_at, updated_at`;
const IDENTIFY = `SELECT users.id, users.role FROM users JOIN sessions ON sessions.user_id = users.id
  WHERE sessions.id = $1 AND users.id = $2 AND sessions.ended_at IS NULL AND sessions.expires_at > now()
  AND users.is_active AND users.deleted_at IS NULL`;

const user = {
  type: "object",
  properties: {
    id: { type: "integer" },
    email: { type: "string" },
    name: { type: "string" },
    role: { type: "string" },
    is_active: { type: "boolean" },
    email_verified: { type: "boolean" },
    external_id: { type: ["string", "null"] },
    metadata: { type: "object", additionalProperties: true },
    version: { type: "integer" },
    created_at: { type: "string", format: "date-time" },
    updated_at: { type: "string", format: "date-time" },
  },
};
const userPage = {
  type: "object",
  properties: {
    users: { type: "array", items: user },
    next_cursor: { type: ["string", "null"] },
    page: { type: "integer" },
    pages: { type: "integer" },
    total: { type: "integer" },
  },
};
const grant = {
  type: "object",
  properties: {
    access_token: { type: "string" },
    token_type: { type: "string" },
    expires_in: { type: "integer" },
    user,
  },
};
const listQuery = {
  type: "object",
  properties: {
    per_page: { type: "integer", minimum: 1, maximum: 100, default: 20 },
    cursor: { type: "integer", minimum: 0, default: 0 },
    page: { type: "integer", minimum: 1 },
    q: { type: "string", minLength: 1, maxLength: 120 },
  },
};
const name = { type: "string", minLength: 2, maxLength: 80 };
const newUser = {
  type: "object",
  required: ["email", "name"],
  properties: { email: { type: "string", format: "email", maxLength: 120 }, name, metadata: { type: "object" } },
};
const userPatch = { type: "object", properties: { name } };
const credentials = {
  type: "object",
  required: ["email", "password"],
  properties: { email: { type: "string" }, password: { type: "string" } },
};
const userId = { type: "object", properties: { id: { type: "integer", minimum: 1 } } };

const key = (text) => text.normalize("NFKC").trim().toLowerCase();
const pattern = (text) => `%${key(text).replace(/[\\%_]/g, "\\$&")}%`;

function build() {
  pg.types.setTypeParser(pg.types.builtins.INT8, Number);
  const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(THREADS) });
  // Named statements are prepared once for each connection.
  const query = (name, text, values) => pool.query({ name, text, values });

  const app = Fastify({ logger: false });
  app.register(etag);
  app.register(jwt, {
    secret: { private: PRIVATE_KEY, public: PUBLIC_KEY },
    sign: { algorithm: "ES256", iss: ISSUER, aud: "rollcall", expiresIn: TOKEN_SECONDS * 1000 },
    verify: { algorithms: ["ES256"], allowedIss: ISSUER, allowedAud: "rollcall" },
  });

  const allow = (roles) => async (request, reply) => {
    const claims = await request.jwtVerify();
    const { rows } = await query("identify", IDENTIFY, [claims.sid, claims.sub]);
    if (!rows.length) return reply.code(401).send({ message: "Unauthorized" });
    if (!roles.includes(rows[0].role)) return reply.code(403).send({ message: "Forbidden" });
  };

  app.register(
    async (api) => {
      api.get(
        "/users",
        { onRequest: allow(READERS), schema: { querystring: listQuery, response: { 200: userPage } } },
        async (request) => {
          const { per_page: size, cursor, page, q } = request.query;
          if (page !== undefined) {
            const counted = await query("count", "SELECT count(*) FROM users WHERE deleted_at IS NULL", []);
            const total = counted.rows[0].count;
            const { rows: users } = await query(
              "page",
              `SELECT ${MEMBERS} FROM users WHERE deleted_at IS NULL ORDER BY id LIMIT $1 OFFSET $2`,
              [size, (page - 1) * size],
            );
            const more = (page - 1) * size + users.length < total;
            const next = more && users.length ? String(users.at(-1).id) : null;
            return { users, next_cursor: next, page, pages: Math.max(1, Math.ceil(total / size)), total };
          }
          const { rows } =
            q === undefined
              ? await query(
                  "list",
                  `SELECT ${MEMBERS} FROM users WHERE deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2`,
                  [cursor, size + 1],
                )
              : // Without a name, so that it is planned for each text.
                await pool.query(
                  `SELECT ${MEMBERS} FROM users WHERE deleted_at IS NULL AND id > $1
                   AND (name_key LIKE $3 OR email_key LIKE $3) ORDER BY id LIMIT $2`,
                  [cursor, size + 1, pattern(q)],
                );
          const users = rows.slice(0, size);
          return { users, next_cursor: rows.length > size ? String(users.at(-1).id) : null };
        },
      );

      api.get(
        "/users/:id",
        { onRequest: allow(READERS), schema: { params: userId, response: { 200: user } } },
        async (request, reply) => {
          const { rows } = await query(
            "get",
            `SELECT ${MEMBERS} FROM users WHERE id = $1 AND deleted_at IS NULL`,
            [request.params.id],
          );
          if (!rows.length) return reply.code(404).send({ message: "User not found" });
          reply.header("ETag", `"${rows[0].version}"`);
          return rows[0];
        },
      );

      api.post(
        "/users",
        { onRequest: allow(WRITERS), schema: { body: newUser, response: { 201: user } } },
        async (request, reply) => {
          const { email, name, metadata = {} } = request.body;
          try {
            const { rows } = await query(
              "create",
              `INSERT INTO users (email, email_key, name, name_key, role, is_active, email_verified, public_metadata,
                 private_metadata, version, created_at, updated_at)
               VALUES ($1, $2, $3, $4, 'member', true, false, $5, '{}', 1, now(), now()) RETURNING ${MEMBERS}`,
              [email, key(email), name, key(name), metadata],
            );
            return reply.code(201).header("Location", `/api/v1/users/${rows[0].id}`).send(rows[0]);
          } catch (error) {
            if (error.code !== "23505") throw error;
            return reply.code(409).send({ message: "A user with this email already exists" });
          }
        },
      );

      api.patch(
        "/users/:id",
        { onRequest: allow(WRITERS), schema: { params: userId, body: userPatch, response: { 200: user } } },
        async (request, reply) => {
          const client = await pool.connect();
          try {
            await client.query("BEGIN");
            const locked = await client.query({
              name: "lock",
              text: "SELECT id, name FROM users WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
              values: [request.params.id],
            });
            if (!locked.rows.length) {
              await client.query("ROLLBACK");
              return reply.code(404).send({ message: "User not found" });
            }
            const { name = locked.rows[0].name } = request.body;
            const { rows } = await client.query({
              name: "patch",
              text: `UPDATE users SET name = $2, name_key = $3, version = version + 1, updated_at = now()
                WHERE id = $1 RETURNING ${MEMBERS}`,
              values: [request.params.id, name, key(name)],
            });
            await client.query("COMMIT");
            return rows[0];
          } catch (error) {
            await client.query("ROLLBACK");
            throw error;
          } finally {
            client.release();
          }
        },
      );

      api.post("/auth/login", { schema: { body: credentials, response: { 200: grant } } }, async (request, reply) => {
        const { email, password } = request.body;
        const { rows } = await query(
          "credentials",
          `SELECT ${MEMBERS}, password_hash FROM users WHERE email_key = $1 AND deleted_at IS NULL`,
          [key(email)],
        );
        const found = rows[0];
        if (!found?.is_active || !found.password_hash || !(await verify(found.password_hash, password))) {
          return reply.code(401).send({ message: "Wrong email or password" });
        }
        const session = await query(
          "sign-in",
          "INSERT INTO sessions (user_id, created_at, expires_at) VALUES ($1, now(), $2) RETURNING id",
          [found.id, new Date(Date.now() + SESSION_SECONDS * 1000)],
        );
        const token = await reply.jwtSign({ sub: String(found.id), sid: String(session.rows[0].id) });
        return { access_token: token, token_type: "Bearer", expires_in: TOKEN_SECONDS, user: found };
      });
    },
    { prefix: "/api/v1" },
  );
  return app;
}

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(WORKERS); worker += 1) cluster.fork();
  cluster.on("exit", () => process.exit(1));
} else {
  await build().listen({ host: "127.0.0.1", port: Number(PORT) });
}
