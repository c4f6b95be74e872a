// Buyers built with each SDK, and what their answers say.
// `buy` goes the SDK's whole way; `present` sends a payment header that someone already has.

import { decodePaymentRequiredHeader, decodePaymentResponseHeader } from "@x402/core/http";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { wrapFetchWithPayment as wrapFetchV2, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { createSigner, decodeXPaymentResponse, wrapFetchWithPayment as wrapFetchV1 } from "x402-fetch";

export const buyerV2 = {
  async buy(purchase) {
    const { response, header } = await buyerV2.pay(purchase);
    return { ...(await buyerV2.read(response)), header };
  },

  /** The answer as it came, and the payment header that was sent for it. */
  async pay({ account, network, url }) {
    const { recordingFetch, sent } = recorder("payment-signature");
    const client = new x402Client().register(network.v2, new ExactEvmScheme(privateKeyToAccount(account.privateKey)));
    const response = await wrapFetchV2(recordingFetch, client)(url);
    return { response, header: sent.at(-1) };
  },

  async present({ url, header }) {
    return buyerV2.read(await fetch(url, { headers: { "PAYMENT-SIGNATURE": header } }));
  },

  async askForTerms(url) {
    const response = await fetch(url);
    const { accepts } = decodePaymentRequiredHeader(response.headers.get("PAYMENT-REQUIRED"));
    await response.arrayBuffer();
    return accepts[0];
  },

  seal: (payload, terms) => encode({ x402Version: 2, payload, accepted: terms }),

  async read(response) {
    const receipt = decodeIfThere(response.headers.get("PAYMENT-RESPONSE"), decodePaymentResponseHeader);
    const terms = decodeIfThere(response.headers.get("PAYMENT-REQUIRED"), decodePaymentRequiredHeader);
    return { status: response.status, body: await response.json(), receipt, refusal: terms?.error ?? receipt?.errorReason };
  },
};

export const buyerV1 = {
  async buy({ account, network, url }) {
    const { recordingFetch, sent } = recorder("x-payment");
    const signer = await createSigner(network.v1, account.privateKey);
    const response = await wrapFetchV1(recordingFetch, signer)(url);
    return { ...(await buyerV1.read(response)), header: sent.at(-1) };
  },

  async present({ url, header }) {
    return buyerV1.read(await fetch(url, { headers: { "X-PAYMENT": header } }));
  },

  async askForTerms(url) {
    const response = await fetch(url);
    return (await response.json()).accepts[0];
  },

  seal: (payload, terms) => encode({ x402Version: 1, scheme: terms.scheme, network: terms.network, payload }),

  async read(response) {
    const receipt = decodeIfThere(response.headers.get("X-PAYMENT-RESPONSE"), decodeXPaymentResponse);
    const body = await response.json();
    return { status: response.status, body, receipt, refusal: body.error };
  },
};

/** The payment that a header carries. */
export function paymentIn(header) {
  return JSON.parse(Buffer.from(header, "base64").toString("utf8"));
}

/** The authorization nonce that a header carries. */
export function nonceIn(header) {
  return paymentIn(header).payload.authorization.nonce;
}

function encode(payment) {
  return Buffer.from(JSON.stringify(payment)).toString("base64");
}

function decodeIfThere(header, decode) {
  return header === null ? undefined : decode(header);
}

/** A `fetch` that keeps the payment headers it was given. */
function recorder(headerName) {
  const sent = [];
  const recordingFetch = (input, init) => {
    const header = new Request(input, init).headers.get(headerName);
    if (header !== null) sent.push(header);
    return fetch(input, init);
  };
  return { recordingFetch, sent };
}
