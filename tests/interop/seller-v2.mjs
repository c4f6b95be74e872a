// A merchant's server built with the v2 SDK, as its documentation says.

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import express from "express";

import { serve } from "./serve.mjs";

/** Sells `/weather` for `price` to the payee; `paymentFlow` and `content` may differ from the SDK's defaults. */
export async function openSellerV2({ quittance, apiKey = quittance.apiKey, network, payee, price, paymentFlow, content }) {
  const authorization = { Authorization: `Bearer ${apiKey}` };
  const facilitator = new HTTPFacilitatorClient({
    url: quittance.url,
    createAuthHeaders: async () => ({ verify: authorization, settle: authorization }),
  });
  const accepts = { scheme: "exact", network: network.v2, payTo: payee, price, ...(paymentFlow && { extra: { paymentFlow } }) };
  const routes = { "GET /weather": { accepts, description: "The weather", mimeType: "application/json" } };

  const asked = { verify: 0, settle: [] };
  const server = new x402ResourceServer(facilitator)
    .register(network.v2, new ExactEvmScheme())
    .onAfterVerify(async () => void (asked.verify += 1))
    .onAfterSettle(async ({ phase }) => void asked.settle.push(phase));

  const app = express();
  app.use(paymentMiddleware(routes, server));
  return { ...(await serve(app, content)), facilitator, asked };
}
